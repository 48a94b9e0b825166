//! The Lambda function `people`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(people::router(&shared::App::from_env().await?)).await
}
