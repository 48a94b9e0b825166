//! The Lambda function `imagefile`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    shared::http::lambda::run(imagefile::router(&shared::App::from_env().await?)).await
}
