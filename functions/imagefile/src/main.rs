//! The Lambda function `imagefile`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    lambda_http::run(imagefile::router(shared::App::from_env().await?)).await
}
