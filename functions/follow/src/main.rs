//! The Lambda function `follow`.

use lambda_http::lambda_runtime::{LambdaEvent, run, service_fn};
use shared::http::lambda::counted;

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = &shared::App::in_function_without_tokens()?;
    let follow = async |event: LambdaEvent<serde_json::Value>| {
        let followed = counted(app, env!("CARGO_PKG_NAME"), Box::pin(follow::handle(app, &event.payload))).await;
        followed.map_err(lambda_http::Error::from)
    };
    run(service_fn(follow)).await
}
