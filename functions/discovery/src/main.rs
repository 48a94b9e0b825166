//! The Lambda function `discovery`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    lambda_http::run(discovery::router(shared::App::from_env().await?)).await
}
