//! The Lambda function `library`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    lambda_http::run(library::router(shared::App::from_env().await?)).await
}
