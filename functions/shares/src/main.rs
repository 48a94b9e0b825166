//! The Lambda function `shares`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(shares::router(&shared::App::from_env().await?)).await
}
