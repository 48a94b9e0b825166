//! The Lambda function `tokens`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(tokens::router(shared::App::from_env().await?)).await
}
