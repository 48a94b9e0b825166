//! The Lambda function `keys`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(keys::router(&shared::App::from_env().await?)).await
}
