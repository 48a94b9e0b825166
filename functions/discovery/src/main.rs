//! The Lambda function `discovery`.

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = shared::App::in_function_without_tokens()?;
    shared::http::lambda::run(&app, env!("CARGO_PKG_NAME"), discovery::router(&app)).await
}
