//! The Lambda function `sweep`.

use lambda_http::lambda_runtime::{LambdaEvent, run, service_fn};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    shared::telemetry::init();
    let app = &shared::App::from_env().await?;
    run(service_fn(async |_: LambdaEvent<serde_json::Value>| sweep::handle(app).await)).await
}
