//! The Lambda function `verify`.

use lambda_http::lambda_runtime::{LambdaEvent, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = &shared::App::in_function_without_tokens()?;
    let verify = async |event: LambdaEvent<serde_json::Value>| {
        verify::handle(app, &event.payload).await.map_err(lambda_http::Error::from)
    };
    run(service_fn(verify)).await
}
