//! The Lambda function `admin`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(admin::router(&shared::App::from_env().await?)).await
}
