//! The Lambda function `keys`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = shared::App::in_function_without_tokens()?;
    shared::http::lambda::run(&app, env!("CARGO_PKG_NAME"), keys::router(&app)).await
}
