//! The Lambda function `discovery`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(discovery::router(&shared::App::from_env().await?)).await
}
