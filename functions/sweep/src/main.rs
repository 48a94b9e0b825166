//! The Lambda function `sweep`.

use lambda_http::lambda_runtime::{LambdaEvent, run, service_fn};
use shared::http::lambda::counted;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = &shared::App::in_function_without_tokens()?;
    let sweep = async |_: LambdaEvent<serde_json::Value>| {
        let swept = counted(app, env!("CARGO_PKG_NAME"), Box::pin(sweep::handle(app))).await;
        swept.map_err(lambda_http::Error::from)
    };
    run(service_fn(sweep)).await
}
