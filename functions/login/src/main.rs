//! The Lambda function `login`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(login::router(&shared::App::from_env().await?)).await
}
