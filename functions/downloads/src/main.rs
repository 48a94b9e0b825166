//! The Lambda function `downloads`.

use lambda_http::lambda_runtime::{LambdaEvent, run, service_fn};
use shared::http::lambda::counted;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = &shared::App::in_function_without_tokens()?;
    let count = async |event: LambdaEvent<serde_json::Value>| {
        let done = counted(app, env!("CARGO_PKG_NAME"), Box::pin(downloads::handle(app, &event.payload))).await;
        done.map_err(lambda_http::Error::from)
    };
    run(service_fn(count)).await
}
