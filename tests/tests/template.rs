//! What AWS's own linters let pass in `template.yaml`: `sam validate --lint` and `cfn-lint`, which `scripts/test lint`
//! runs, accept an unknown runtime, a timeout of an hour, and a policy for a resource that is not there.
//!
//! [`problems`] names what is wrong with a template; a table of broken ones shows that it sees each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "a failed test panics")]

use serde_yaml_ng::{Mapping, Value};
use server::routes::{TEMPLATE, of_template};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The top of the tree.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The text of all Rust sources below a folder.
fn sources(folder: &str) -> String {
    let mut folders = vec![top().join(folder)];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

/// A template that can be read.
struct Template {
    all: Value,
    problems: Vec<String>,
}

/// A part of a mapping; an empty one if it is not there.
fn part(value: &Value, name: &str) -> Mapping {
    value.get(name).and_then(Value::as_mapping).cloned().unwrap_or_default()
}

/// The keys of a mapping that are text.
fn names(mapping: &Mapping) -> impl Iterator<Item = &str> {
    mapping.keys().filter_map(Value::as_str)
}

impl Template {
    fn says(&mut self, problem: String) {
        self.problems.push(problem);
    }

    fn resources(&self) -> Vec<(String, Value)> {
        let resources = part(&self.all, "Resources").into_iter();
        resources.map(|(id, resource)| (id.as_str().unwrap().to_owned(), resource.clone())).collect()
    }

    fn of_type(&self, kind: &str) -> Vec<(String, Value)> {
        self.resources().into_iter().filter(|(_, resource)| resource["Type"] == kind).collect()
    }

    /// A property of a function, its own or everybody's.
    fn property(&self, function: &Value, name: &str) -> Value {
        let own = function["Properties"].get(name).cloned();
        own.or_else(|| self.all["Globals"]["Function"].get(name).cloned()).unwrap_or_default()
    }

    /// The names of the variables that a function is given.
    fn variables(&self, function: &Value) -> BTreeSet<String> {
        let variables = |value: &Value| {
            let environment = value.get("Environment").cloned().unwrap_or_default();
            names(&part(&environment, "Variables")).map(str::to_owned).collect::<Vec<_>>()
        };
        [variables(&self.all["Globals"]["Function"]), variables(&function["Properties"])].concat().into_iter().collect()
    }
}

/// The attributes of the types of resources whose attributes we use.
const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("AWS::DynamoDB::Table", &["Arn", "StreamArn"]),
    ("AWS::S3::Bucket", &["Arn", "RegionalDomainName"]),
    ("AWS::SQS::Queue", &["Arn", "QueueName"]),
    ("AWS::ApiGatewayV2::DomainName", &["RegionalDomainName"]),
];

/// What a template is made of, for looking up references.
struct Known {
    parameters: BTreeSet<String>,
    conditions: BTreeSet<String>,
    types: BTreeMap<String, String>,
}

impl Known {
    /// What is wrong with a reference to a whole resource or a parameter.
    fn reference(&self, name: &str) -> Option<String> {
        // SAM names the stage of an API by a second part.
        let name = name.strip_suffix(".Stage").unwrap_or(name);
        let known = self.parameters.contains(name) || self.types.contains_key(name) || name.starts_with("AWS::");
        (!known).then(|| format!("{name} refers to nothing"))
    }

    /// What is wrong with a reference to an attribute of a resource.
    fn attribute(&self, name: &str) -> Option<String> {
        let (resource, attribute) = name.split_once('.').unwrap_or((name, ""));
        let Some(kind) = self.types.get(resource) else { return Some(format!("{name} refers to nothing")) };
        let known = ATTRIBUTES.iter().any(|(of, attributes)| of == kind && attributes.contains(&attribute));
        (!known).then(|| format!("{name}: {kind} has no such attribute that we know"))
    }

    /// What is wrong with the references in a text with `${…}`.
    fn text(&self, text: &str) -> Vec<String> {
        let named = text.split("${").skip(1).filter_map(|rest| rest.split('}').next());
        named.filter_map(|name| if name.contains('.') { self.attribute(name) } else { self.reference(name) }).collect()
    }

    /// All references in a value, whatever part of the template it is.
    fn references(&self, value: &Value, wrong: &mut Vec<String>) {
        match value {
            Value::Tagged(tagged) => {
                let name = tagged.value.as_str().unwrap_or_default();
                match tagged.tag.to_string().as_str() {
                    "!Ref" => wrong.extend(self.reference(name)),
                    "!GetAtt" => wrong.extend(self.attribute(name)),
                    "!Sub" => wrong.extend(self.text(name)),
                    "!Condition" => {
                        let known = self.conditions.contains(name);
                        wrong.extend((!known).then(|| format!("no condition {name}")));
                    }
                    "!If" => {
                        let name = tagged.value[0].as_str().unwrap_or_default();
                        wrong.extend((!self.conditions.contains(name)).then(|| format!("no condition {name}")));
                    }
                    "!Equals" | "!Not" | "!And" | "!Or" => {}
                    tag => wrong.push(format!("{tag} is not known here")),
                }
                self.references(&tagged.value, wrong);
            }
            Value::Sequence(values) => values.iter().for_each(|value| self.references(value, wrong)),
            Value::Mapping(mapping) => mapping.values().for_each(|value| self.references(value, wrong)),
            _ => {}
        }
    }
}

/// All references lead to something, in policies too.
fn references(template: &mut Template) {
    let owned = |name: &str| names(&part(&template.all, name)).map(str::to_owned).collect::<BTreeSet<_>>();
    let known = Known {
        parameters: owned("Parameters"),
        conditions: owned("Conditions"),
        types: template
            .resources()
            .into_iter()
            .map(|(id, resource)| (id, resource["Type"].as_str().unwrap_or_default().to_owned()))
            .collect(),
    };
    let mut wrong = Vec::new();
    known.references(&template.all, &mut wrong);
    for (id, resource) in template.resources().iter().chain(&named_outputs(template)) {
        if let Some(condition) = resource.get("Condition").and_then(Value::as_str)
            && !known.conditions.contains(condition)
        {
            wrong.push(format!("{id}: no condition {condition}"));
        }
    }
    template.problems.extend(wrong);
    // What nothing refers to does nothing.
    let text = serde_yaml_ng::to_string(&template.all).unwrap();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for word in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        *uses.entry(word).or_default() += 1;
    }
    for name in known.parameters.iter().chain(&known.conditions) {
        if uses[name.as_str()] < 2 {
            template.says(format!("{name} is used nowhere"));
        }
    }
}

fn named_outputs(template: &Template) -> Vec<(String, Value)> {
    let outputs = part(&template.all, "Outputs").into_iter();
    outputs.map(|(id, output)| (id.as_str().unwrap().to_owned(), output.clone())).collect()
}

/// Each function is one of ours, and each of ours is there.
fn crates(template: &mut Template) {
    let folders = fs::read_dir(top().join("functions")).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.path().join("Cargo.toml").exists());
    let mut crates: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    for (id, function) in template.of_type("AWS::Serverless::Function") {
        let name = id.to_lowercase();
        if !crates.remove(&name) {
            template.says(format!("{id} has no crate"));
        }
        // `cargo lambda build` looks for a binary only in the package of the folder in which it runs.
        let (code, binary) = (&function["Properties"]["CodeUri"], &function["Metadata"]["BuildProperties"]["Binary"]);
        if *code != format!("functions/{name}").as_str() || *binary != name.as_str() {
            template.says(format!("{id} is not built from its crate"));
        }
        if function["Metadata"]["BuildMethod"] != "rust-cargolambda" {
            template.says(format!("{id} is not built by cargo lambda"));
        }
    }
    for name in crates {
        template.says(format!("functions/{name} is not deployed"));
    }
}

/// Runtimes, times and sizes that Lambda has.
fn limits(template: &mut Template) {
    let served: BTreeSet<String> = of_template(&serde_yaml_ng::to_string(&template.all).unwrap())
        .unwrap()
        .into_iter()
        .map(|one| one.function)
        .collect();
    for (id, function) in template.of_type("AWS::Serverless::Function") {
        let runtime = template.property(&function, "Runtime");
        if runtime != "provided.al2023" {
            template.says(format!("{id} has the runtime {runtime:?}"));
        }
        // A gateway waits for 30 seconds.
        let most = if served.contains(&id) { 29 } else { 900 };
        let timeout = template.property(&function, "Timeout").as_u64().unwrap_or_default();
        if !(1..=most).contains(&timeout) {
            template.says(format!("{id} may run for {timeout} s, at most {most} are of use"));
        }
        let memory = template.property(&function, "MemorySize").as_u64().unwrap_or_default();
        if !(128..=10240).contains(&memory) {
            template.says(format!("{id} has {memory} MiB of memory"));
        }
        if template.property(&function, "Handler") != "bootstrap" {
            template.says(format!("{id} starts something else than its bootstrap"));
        }
        for name in ["Architectures", "LoggingConfig", "Tracing"] {
            if template.property(&function, name).is_null() {
                template.says(format!("{id} has no {name}"));
            }
        }
        let invoke = function["Properties"].get("FunctionUrlConfig").and_then(|url| url.get("InvokeMode")).cloned();
        if invoke.is_some_and(|mode| mode != "BUFFERED" && mode != "RESPONSE_STREAM") {
            template.says(format!("{id} has an unknown invoke mode"));
        }
    }
}

/// What invokes functions.
fn events(template: &mut Template) {
    for (id, function) in template.of_type("AWS::Serverless::Function") {
        let events = part(&function["Properties"], "Events");
        if events.is_empty() {
            template.says(format!("nothing invokes {id}"));
        }
        for (name, event) in &events {
            let name = name.as_str().unwrap_or_default();
            let properties = part(event, "Properties");
            let known: &[&str] = match event["Type"].as_str().unwrap_or_default() {
                "HttpApi" => &["ApiId", "Method", "Path"],
                "Schedule" => &["Schedule"],
                "CloudWatchLogs" => &["LogGroupName", "FilterPattern"],
                "DynamoDB" => &[
                    "Stream",
                    "StartingPosition",
                    "BatchSize",
                    "MaximumBatchingWindowInSeconds",
                    "ParallelizationFactor",
                    "MaximumRetryAttempts",
                    "DestinationConfig",
                    "FilterCriteria",
                ],
                other => {
                    template.says(format!("{id}: {name} is a {other}, which its code does not read"));
                    continue;
                }
            };
            for property in names(&properties).filter(|property| !known.contains(property)) {
                template.says(format!("{id}: {name} has the property {property}, which is not known here"));
            }
            if event["Type"] == "DynamoDB" && !properties.contains_key("DestinationConfig") {
                template.says(format!("{id}: what it gives up on is lost"));
            }
        }
    }
}

/// Every variable is read by code, and every setting that a function needs is given to it.
fn settings(template: &mut Template) {
    static CODE: OnceLock<(BTreeSet<String>, BTreeSet<String>)> = OnceLock::new();
    let (read, needed) = CODE.get_or_init(|| {
        let code = sources("shared/src");
        let read = code.split('"').map(str::to_owned).collect();
        let needed = code.split("setting(\"STACKROOM_").skip(1).map(|rest| rest.split('"').next().unwrap());
        (read, needed.map(|name| format!("STACKROOM_{name}")).collect())
    });
    assert!(needed.len() > 2, "{needed:?}");
    for (id, function) in template.of_type("AWS::Serverless::Function") {
        let given = template.variables(&function);
        for name in &given {
            if !read.contains(name) {
                template.says(format!("{id}: no code reads {name}"));
            }
        }
        // The keys are never in the environment: their secret is.
        let secret = "STACKROOM_TOKEN_KEYS_SECRET";
        let mut needed = needed.clone();
        needed.insert(secret.to_owned());
        for name in needed.difference(&given) {
            template.says(format!("{id} needs {name}"));
        }
        if given.contains("STACKROOM_TOKEN_KEYS") {
            template.says(format!("{id} has the token keys in its environment"));
        }
        let main = fs::read_to_string(top().join(format!("functions/{}/src/main.rs", id.to_lowercase())));
        let reads = main.unwrap_or_default().contains("in_function()");
        let policies = serde_yaml_ng::to_string(&function["Properties"]).unwrap();
        if reads != policies.contains("secretsmanager:GetSecretValue") {
            template.says(format!("{id} reads the token keys: {reads}, and is allowed something else"));
        }
    }
}

/// What holds people's data outlives the stack and its mistakes. The search index holds none.
fn stores(template: &mut Template) {
    let mut stores = [template.of_type("AWS::DynamoDB::Table"), template.of_type("AWS::S3::Bucket")].concat();
    stores.retain(|(id, _)| id != "Index");
    for (id, resource) in &stores {
        for policy in ["DeletionPolicy", "UpdateReplacePolicy"] {
            if resource.get(policy).is_none_or(|policy| policy != "Retain") {
                template.says(format!("{id} has no {policy} that keeps it"));
            }
        }
    }
    let text = |value: &Value| serde_yaml_ng::to_string(value).unwrap();
    for (id, table) in template.of_type("AWS::DynamoDB::Table").into_iter().filter(|(id, _)| id != "Index") {
        let properties = text(&table["Properties"]);
        for wanted in ["PointInTimeRecoveryEnabled: true", "BillingMode: PAY_PER_REQUEST", "DeletionProtectionEnabled:"]
        {
            if !properties.contains(wanted) {
                template.says(format!("{id} has no {wanted}"));
            }
        }
        if !properties.contains("TimeToLiveSpecification:\n  AttributeName: gone\n  Enabled: true") {
            template.says(format!("{id} does not let go of events"));
        }
    }
    for (id, bucket) in template.of_type("AWS::S3::Bucket") {
        let properties = &bucket["Properties"];
        for block in ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] {
            if properties["PublicAccessBlockConfiguration"].get(block) != Some(&Value::Bool(true)) {
                template.says(format!("{id} does not {block}"));
            }
        }
        if properties.get("BucketEncryption").is_none() {
            template.says(format!("{id} is not encrypted"));
        }
        // A rule that lets current objects expire would take images away.
        let rules = text(&properties["LifecycleConfiguration"]);
        let expiring =
            rules.lines().map(str::trim_start).any(|line| line.trim_start_matches("- ").starts_with("Expiration"));
        if expiring {
            template.says(format!("{id} lets objects expire"));
        }
        if !rules.contains("DaysAfterInitiation: 8") {
            template.says(format!("{id} keeps parts of uploads for another time than the longest life of a URL"));
        }
        let policies = template.of_type("AWS::S3::BucketPolicy");
        if !policies.iter().any(|(_, policy)| text(&policy["Properties"]).contains("aws:SecureTransport")) {
            template.says(format!("{id} answers without TLS"));
        }
    }
}

/// Everything that is wrong with a template.
fn problems(text: &str) -> Vec<String> {
    let all = match serde_yaml_ng::from_str(text) {
        Ok(all) => all,
        Err(error) => return vec![error.to_string()],
    };
    let mut template = Template { all, problems: Vec::new() };
    for check in [references, crates, limits, events, settings, stores] {
        check(&mut template);
    }
    template.problems
}

#[test]
fn nothing_is_wrong_with_the_template() {
    assert_eq!(problems(TEMPLATE), Vec::<String>::new());
}

/// Changes that break the template, each with what has to be said of it.
const BROKEN: [(&str, &str, &str); 33] = [
    ("Runtime: provided.al2023", "Runtime: provided.al2024", "has the runtime"),
    ("Timeout: 29", "Timeout: 31", "may run for 31 s"),
    ("Timeout: 900", "Timeout: 3000", "may run for 3000 s"),
    ("MemorySize: 1769", "MemorySize: 64", "64 MiB"),
    ("Handler: bootstrap", "Handler: main", "starts something else"),
    (
        "      CodeUri: functions/oci\n",
        "      CodeUri: functions/oci\n      FunctionUrlConfig: { InvokeMode: STREAM }\n",
        "invoke mode",
    ),
    // In policies, where SAM's linters look at nothing.
    (
        "[s3:GetObject], Resource: !Sub \"${Bucket.Arn}/*\"",
        "[s3:GetObject], Resource: !Sub \"${Bukket.Arn}/*\"",
        "Bukket.Arn refers to nothing",
    ),
    (
        "[dynamodb:DescribeTable], Resource: !GetAtt Table.Arn",
        "[dynamodb:DescribeTable], Resource: !GetAtt Tabel.Arn",
        "Tabel.Arn refers to nothing",
    ),
    (
        "[dynamodb:DescribeTable], Resource: !GetAtt Table.Arn",
        "[dynamodb:DescribeTable], Resource: !GetAtt Table.Name",
        "no such attribute",
    ),
    ("Resource: !Ref TokenKeysSecret", "Resource: !Ref TokenKeys", "TokenKeys refers to nothing"),
    ("!Sub \"https://${Api}.", "!Sub \"https://${Gateway}.", "Gateway refers to nothing"),
    ("!If [KeepsDeleted,", "!If [Keeps,", "no condition Keeps"),
    ("    Condition: HasDashboard\n", "    Condition: HasBoard\n", "no condition HasBoard"),
    ("    Condition: HasDomain\n    Description", "    Condition: HasName\n    Description", "no condition HasName"),
    ("NAMESPACE: !Ref MetricsNamespace", "NAMESPACE: space", "MetricsNamespace is used nowhere"),
    ("STACKROOM_DEFAULT_QUOTA: !Ref", "STACKROOM_QUOTA: !Ref", "no code reads STACKROOM_QUOTA"),
    ("          STACKROOM_LONGEST_CHUNK:", "          AWS_ENDPOINT:", "no code reads AWS_ENDPOINT"),
    ("        STACKROOM_BUCKET: !Ref Bucket\n", "", "needs STACKROOM_BUCKET"),
    ("        STACKROOM_TOKEN_KEYS_SECRET: !Ref TokenKeysSecret\n", "", "needs STACKROOM_TOKEN_KEYS_SECRET"),
    ("STACKROOM_DEFAULT_QUOTA: !Ref", "STACKROOM_TOKEN_KEYS: !Ref", "the token keys in its environment"),
    (
        "            - { Effect: Allow, Action: [secretsmanager:GetSecretValue], Resource: !Ref TokenKeysSecret }\n",
        "",
        "is allowed something else",
    ),
    ("\n  Keys:\n", "\n  Keyserver:\n", "Keyserver has no crate"),
    ("\n  Keys:\n", "\n  Keyserver:\n", "functions/keys is not deployed"),
    ("CodeUri: functions/sweep", "CodeUri: .", "not built from its crate"),
    ("Type: Schedule,", "Type: ScheduleV3,", "which its code does not read"),
    ("            ParallelizationFactor: 10\n", "            Parallelization: 10\n", "not known here"),
    (
        "            DestinationConfig: { OnFailure: { Type: SQS, Destination: !GetAtt DeadLetters.Arn } }\n",
        "",
        "is lost",
    ),
    ("    UpdateReplacePolicy: Retain\n", "", "Table has no UpdateReplacePolicy"),
    ("PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false", "no PointInTimeRecovery"),
    ("AttributeName: gone, Enabled: true", "AttributeName: end, Enabled: true", "does not let go of events"),
    ("IgnorePublicAcls: true", "IgnorePublicAcls: false", "does not IgnorePublicAcls"),
    ("AbortIncompleteMultipartUpload: { DaysAfterInitiation: 8 } }", "ExpirationInDays: 30 }", "lets objects expire"),
    ("\"aws:SecureTransport\": \"false\"", "\"aws:PrincipalArn\": \"*\"", "answers without TLS"),
];

#[test]
fn each_way_to_break_the_template_is_seen() {
    for (right, wrong, said) in BROKEN {
        assert!(TEMPLATE.contains(right), "{right}");
        let found = problems(&TEMPLATE.replacen(right, wrong, 1));
        assert!(found.iter().any(|problem| problem.contains(said)), "{wrong}: {found:?}");
    }
}

#[test]
fn no_alarm_counts_more_metrics_than_one_can() {
    let template = Template { all: serde_yaml_ng::from_str(TEMPLATE).unwrap(), problems: Vec::new() };
    for (id, alarm) in template.of_type("AWS::CloudWatch::Alarm") {
        let metrics = alarm["Properties"].get("Metrics").and_then(Value::as_sequence);
        let counted = metrics.into_iter().flatten().filter(|metric| metric.get("MetricStat").is_some()).count();
        assert!(counted <= 10, "{id} counts {counted} metrics");
        assert_eq!(alarm["Condition"], "HasAlarms", "{id}");
    }
}

#[test]
fn the_dashboard_is_json() {
    let template = Template { all: serde_yaml_ng::from_str(TEMPLATE).unwrap(), problems: Vec::new() };
    let (_, board) = template.of_type("AWS::CloudWatch::Dashboard").remove(0);
    let Value::Tagged(text) = &board["Properties"]["DashboardBody"] else { panic!("{board:?}") };
    let board: serde_json::Value = serde_json::from_str(text.value.as_str().unwrap()).unwrap();
    assert!(board["widgets"].as_array().unwrap().len() > 3);
}
