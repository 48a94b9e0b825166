//! The Lambda function `oci`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(oci::router(&shared::App::from_env().await?)).await
}
