//! Instances: what a real process sees of Lambda, and what becomes of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a failed test panics")]

mod common;

use common::Deployed;
use gateway::faults::Rates;
use gateway::lambda::{Answered, Failure, Function};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

async fn ask(function: &Function, event: Value) -> Result<Answered, Failure> {
    function.invoke(event.to_string().into()).await
}

/// What the sample says of itself.
async fn told(function: &Function) -> Value {
    let answered = ask(function, json!({})).await.unwrap();
    let answer: Value = serde_json::from_slice(&answered.payload).unwrap();
    serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
}

/// *Lambda Developer Guide*, "Using the Lambda runtime API for custom runtimes", "Next invocation".
#[tokio::test]
async fn an_instance_hears_of_its_event_its_deadline_its_name_and_its_trace() {
    let deployed = Deployed::new();
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let told = told(&deployed.functions["Sample"]).await;
    let left = told["deadline"].as_str().unwrap().parse::<u128>().unwrap() - before;
    assert!((1500..=12_000).contains(&left), "{left}");
    assert_eq!(told["arn"], "arn:aws:lambda:eu-test-1:000000000000:function:Sample");
    let trace = told["trace"].as_str().unwrap();
    assert!(trace.starts_with("Root=1-") && trace.contains(";Parent=") && trace.ends_with(";Sampled=0"), "{trace}");
}

/// *Lambda Developer Guide*, "Working with Lambda environment variables".
#[tokio::test]
async fn an_instance_has_the_variables_of_lambda_the_template_and_the_machine() {
    let deployed = Deployed::new();
    let answered = ask(&deployed.functions["Sample"], json!({ "do": "environment" })).await.unwrap();
    let variables: Value = serde_json::from_slice(&answered.payload).unwrap();
    for (name, value) in [
        ("NAME", "from the template"),
        ("ENDPOINT", "http://127.0.0.1:1"),
        ("TZ", ":UTC"),
        ("AWS_REGION", "eu-test-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "Sample"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
    ] {
        assert_eq!(variables[name], value, "{name}");
    }
    assert!(variables["AWS_ACCESS_KEY_ID"].as_str().unwrap().starts_with("ASIA"));
    assert!(variables["AWS_SESSION_TOKEN"].as_str().unwrap().len() > 500);
    assert_eq!(variables.get("HOME"), None);
}

/// *Lambda Developer Guide*, "Understanding Lambda function scaling": one event at a time.
#[tokio::test]
async fn an_instance_takes_one_event_at_a_time_and_is_used_again() {
    let deployed = Deployed::new();
    let function = &deployed.functions["Sample"];
    let (one, other) = (told(function).await, told(function).await);
    assert_eq!((&one["count"], &other["count"], &one["pid"]), (&json!(1), &json!(2), &other["pid"]));
    assert_eq!(function.started(), 1);
    let sleep = || ask(function, json!({ "do": "sleep" }));
    let (a, b, c) = tokio::join!(sleep(), sleep(), sleep());
    let started = [a, b, c].into_iter().filter(|answered| answered.as_ref().unwrap().report.init.is_some()).count();
    assert_eq!((started, function.started()), (2, 3));
}

/// *Lambda Developer Guide*, "Lambda execution environment lifecycle": frozen between invocations.
#[tokio::test]
async fn an_instance_is_frozen_between_two_events() {
    let deployed = Deployed::new();
    let function = &deployed.functions["Sample"];
    let before = told(function).await["ticks"].as_u64().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let after = told(function).await["ticks"].as_u64().unwrap();
    // Awake it would have ticked a hundred times.
    assert!(after - before < 50, "{before} {after}");
}

/// *Lambda Developer Guide*, "Configuring reserved concurrency"; *Lambda API Reference*, "Invoke".
#[tokio::test]
async fn more_events_than_reserved_concurrency_are_refused() {
    let deployed = Deployed::new();
    let function = &deployed.functions["One"];
    let sleep = || ask(function, json!({ "do": "sleep" }));
    let (one, other) = tokio::join!(sleep(), sleep());
    assert!(one.is_ok() && matches!(other, Err(Failure::Throttled)), "{one:?} {other:?}");
    assert!(sleep().await.is_ok());
}

/// *Lambda Developer Guide*, "Configure Lambda function timeout"; "Lambda quotas".
#[tokio::test]
async fn what_ends_an_invocation_without_an_answer_is_told_apart() {
    let deployed = Deployed::new();
    let function = &deployed.functions["Sample"];
    let began = Instant::now();
    assert!(matches!(ask(function, json!({ "do": "hang" })).await, Err(Failure::TimedOut(_))));
    assert!(began.elapsed() >= Duration::from_secs(2));
    assert!(matches!(ask(function, json!({ "do": "exit" })).await, Err(Failure::Exited(_))));
    assert_eq!(told(function).await["count"], 1, "both instances are gone");
    let error = ask(function, json!({ "do": "fail" })).await.unwrap_err().to_string();
    assert!(error.contains("Wanted"), "{error}");
    assert!(matches!(ask(function, json!({ "do": "large" })).await, Err(Failure::ResponseTooLarge)));
    assert_eq!(told(function).await["count"], 4, "an error ends no instance");
    let large = json!({ "x": "x".repeat(6 << 20) });
    assert!(matches!(ask(function, large).await, Err(Failure::RequestTooLarge(_))));
    let error = ask(&deployed.functions["Broken"], json!({})).await.unwrap_err().to_string();
    assert!(error.contains("NoSettings"), "{error}");
}

/// *Lambda Developer Guide*, "Using the Lambda runtime API for custom runtimes": `InvalidRequestID`, 400.
#[tokio::test]
async fn an_instance_can_not_answer_for_another_event() {
    let deployed = Deployed::new();
    let answered = ask(&deployed.functions["Sample"], json!({ "do": "stranger" })).await.unwrap();
    let answer: Value = serde_json::from_slice(&answered.payload).unwrap();
    assert!(answer["body"].as_str().unwrap().contains("400"), "{answer}");
}

#[tokio::test]
async fn a_cold_start_and_a_second_delivery_happen_when_they_are_drawn() {
    let deployed = Deployed::new();
    let function = &deployed.functions["Sample"];
    let first = told(function).await;
    deployed.faults.set(Rates { cold: 1.0, ..Rates::default() });
    assert_ne!(told(function).await["pid"], first["pid"]);
    deployed.faults.set(Rates { twice: 1.0, ..Rates::default() });
    function.deliver("{}".into(), 0).await.unwrap();
    deployed.faults.set(Rates { throttled: 1.0, ..Rates::default() });
    assert!(matches!(ask(function, json!({})).await, Err(Failure::Throttled)));
    deployed.faults.set(Rates::default());
    assert_eq!(told(function).await["count"], 4, "one, two of the delivery, and this one");
    // An event that fails is tried again.
    let failure = function.deliver(json!({ "do": "fail" }).to_string().into(), 2).await;
    assert!(failure.is_err());
    assert_eq!(told(function).await["count"], 8);
}
