//! The Lambda function `library`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = shared::App::in_function().await?;
    shared::http::lambda::run(&app, env!("CARGO_PKG_NAME"), library::router(&app)).await
}
