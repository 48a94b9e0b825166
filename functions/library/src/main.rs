//! The Lambda function `library`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(library::router(&shared::App::from_env().await?)).await
}
