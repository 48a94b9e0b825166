//! The deployment, as its SAM template describes it: functions with their routes, their other events, their environment
//! and what they are allowed.
//!
//! Source: *AWS Serverless Application Model, Developer Guide*: "SAM resources and properties", "Globals section of the
//! SAM template"; *AWS `CloudFormation` User Guide*: "Intrinsic function reference", "Pseudo parameters reference".
//!
//! Functions are read, and the properties of any other resource on request. Whatever properties refer to is resolved:
//! parameters, names and ARNs of other resources, conditions. What can't be resolved is an error, and never left out.

use crate::policy::{Effect, Statement};
use serde_yaml_ng::{Mapping, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// The template can't be read, or has something that is not simulated.
#[derive(Debug, thiserror::Error)]
#[error("the template can't be deployed here: {0}")]
pub struct TemplateError(String);

fn wrong<T>(what: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError(what.into()))
}

/// What a template leaves open, and whoever deploys it says.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The region.
    pub region: String,
    /// The account, twelve digits.
    pub account: String,
    /// The values of the template's parameters. Those that are missing here have their defaults.
    pub parameters: BTreeMap<String, String>,
    /// The names of resources by their logical ids. Others have their logical id as their name.
    pub names: BTreeMap<String, String>,
    /// What `{{resolve:secretsmanager:…}}` stands for, by the name of the secret.
    pub secrets: BTreeMap<String, String>,
}

impl Default for Deployment {
    fn default() -> Self {
        Self {
            region: "eu-test-1".to_owned(),
            account: "000000000000".to_owned(),
            parameters: BTreeMap::new(),
            names: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }
}

/// A function of a template.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    /// Its logical id.
    pub id: String,
    /// The program that it runs: what `cargo lambda build` calls it.
    pub binary: String,
    /// Its ARN.
    pub arn: String,
    /// Its region.
    pub region: String,
    /// Its memory, in MiB.
    pub memory: u64,
    /// How long one invocation may take.
    pub timeout: Duration,
    /// The most instances at a time, if that is limited.
    pub concurrency: Option<usize>,
    /// Its variables.
    pub environment: BTreeMap<String, String>,
    /// What it may do.
    pub statements: Vec<Statement>,
    /// What calls it.
    pub events: Vec<Event>,
}

/// What calls a function.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Requests to a route of the HTTP API.
    Http {
        /// The method, or `ANY`.
        method: String,
        /// The path, as API Gateway spells it, or `$default`.
        path: String,
    },
    /// A schedule.
    Schedule {
        /// Like `rate(1 hour)`.
        expression: String,
    },
    /// The changes of a table.
    Stream {
        /// The ARN of the stream.
        stream: String,
        /// The most records in one event.
        batch: u64,
        /// How often a failed event is sent again, if that is limited.
        retries: Option<u64>,
        /// Only records that match one of these are sent.
        patterns: Vec<serde_json::Value>,
    },
    /// Lines of a log.
    Logs {
        /// The group of the log.
        group: String,
        /// Only lines with this field are sent.
        field: String,
    },
    /// The messages of a queue.
    Queue {
        /// The ARN of the queue.
        queue: String,
        /// The most messages in one event.
        batch: u64,
    },
}

impl Event {
    /// Whether an event source sends this record of a stream. Source: *Lambda Developer Guide*, "Control which events
    /// Lambda sends to your function": all fields of a pattern must match, and of a list of values one. Of its operators,
    /// like `exists`, only `prefix` is simulated: what has another one matches nothing.
    pub fn takes(&self, record: &serde_json::Value) -> bool {
        match self {
            Self::Stream { patterns, .. } => {
                patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, record))
            }
            _ => false,
        }
    }
}

fn fits(pattern: &serde_json::Value, record: &serde_json::Value) -> bool {
    match pattern {
        serde_json::Value::Object(fields) => {
            fields.iter().all(|(name, pattern)| record.get(name).is_some_and(|found| fits(pattern, found)))
        }
        serde_json::Value::Array(values) => values.iter().any(|value| {
            let prefix = value.get("prefix").and_then(serde_json::Value::as_str);
            prefix
                .map_or_else(|| value == record, |prefix| record.as_str().is_some_and(|text| text.starts_with(prefix)))
        }),
        _ => false,
    }
}

/// Reads the functions of a template, in its order.
pub fn functions(template: &str, deployment: &Deployment) -> Result<Vec<FunctionSpec>, TemplateError> {
    let template: Value = serde_yaml_ng::from_str(template).map_err(|error| TemplateError(error.to_string()))?;
    let reader = Reader { template: &template, deployment };
    let Some(resources) = template.get("Resources").and_then(Value::as_mapping) else { return wrong("no Resources") };
    let mut functions = Vec::new();
    for (id, resource) in resources {
        let Some(id) = id.as_str() else { return wrong("a resource without a name") };
        if resource.get("Type").and_then(Value::as_str) == Some("AWS::Serverless::Function") && reader.made(resource)? {
            functions.push(reader.function(id, resource)?);
        }
    }
    Ok(functions)
}

/// The properties of a resource, for whoever creates it elsewhere: as the template has them, resolved.
pub fn properties(template: &str, deployment: &Deployment, id: &str) -> Result<serde_json::Value, TemplateError> {
    let template: Value = serde_yaml_ng::from_str(template).map_err(|error| TemplateError(error.to_string()))?;
    let reader = Reader { template: &template, deployment };
    reader.kind(id)?;
    let resource = template.get("Resources").and_then(|resources| resources.get(id));
    let properties = resource.and_then(|resource| resource.get("Properties")).cloned().unwrap_or_default();
    serde_json::to_value(reader.resolved(&properties)?).map_err(|error| TemplateError(format!("{id}: {error}")))
}

struct Reader<'a> {
    template: &'a Value,
    deployment: &'a Deployment,
}

impl Reader<'_> {
    /// Whether a resource is created: its condition holds, if it has one.
    fn made(&self, resource: &Value) -> Result<bool, TemplateError> {
        resource.get("Condition").and_then(Value::as_str).map_or(Ok(true), |name| self.condition(name))
    }

    fn function(&self, id: &str, resource: &Value) -> Result<FunctionSpec, TemplateError> {
        let globals = self.template.get("Globals").and_then(|globals| globals.get("Function"));
        let properties = resource.get("Properties").cloned().unwrap_or_else(|| Value::Mapping(Mapping::new()));
        let properties = match globals {
            Some(globals) => self.resolved(&merged(globals.clone(), properties))?,
            None => self.resolved(&properties)?,
        };
        let number = |name: &str, default: u64| match properties.get(name) {
            None => Ok(default),
            Some(value) => whole(value).ok_or_else(|| TemplateError(format!("{id}: {name} is not a whole number"))),
        };
        let built = resource.get("Metadata").and_then(|metadata| metadata.get("BuildProperties"));
        let binary = built.and_then(|built| built.get("Binary")).and_then(Value::as_str);
        let variables = properties.get("Environment").and_then(|environment| environment.get("Variables"));
        let mut environment = BTreeMap::new();
        for (name, value) in variables.and_then(Value::as_mapping).into_iter().flatten() {
            let (Some(name), Some(value)) = (name.as_str(), text(value)) else {
                return wrong(format!("{id}: a variable that is not text"));
            };
            environment.insert(name.to_owned(), self.with_secrets(&value)?);
        }
        let mut events = Vec::new();
        for (name, event) in properties.get("Events").and_then(Value::as_mapping).into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            events.push(read_event(event).map_err(|error| TemplateError(format!("{id}, {name}: {}", error.0)))?);
        }
        let concurrency = match properties.get("ReservedConcurrentExecutions") {
            Some(_) => usize::try_from(number("ReservedConcurrentExecutions", 0)?).ok(),
            None => None,
        };
        let policies = properties.get("Policies").cloned().unwrap_or_default();
        Ok(FunctionSpec {
            id: id.to_owned(),
            binary: binary.map_or_else(|| id.to_lowercase(), str::to_owned),
            arn: self.attribute(id, "Arn")?,
            region: self.deployment.region.clone(),
            memory: number("MemorySize", 128)?,
            timeout: Duration::from_secs(number("Timeout", 3)?),
            concurrency,
            environment,
            statements: statements(&policies).map_err(|error| TemplateError(format!("{id}: {}", error.0)))?,
            events,
        })
    }

    /// A value without intrinsic functions.
    fn resolved(&self, value: &Value) -> Result<Value, TemplateError> {
        match value {
            Value::Tagged(tagged) => self.intrinsic(tagged.tag.to_string().trim_start_matches('!'), &tagged.value),
            Value::Mapping(mapping) => {
                if let Some((name, argument)) = long_form(mapping) {
                    return self.intrinsic(name, argument);
                }
                let mut resolved = Mapping::new();
                for (name, value) in mapping {
                    let value = self.resolved(value)?;
                    // `AWS::NoValue` removes the property.
                    if !value.is_null() {
                        resolved.insert(name.clone(), value);
                    }
                }
                Ok(Value::Mapping(resolved))
            }
            Value::Sequence(items) => {
                let items = items.iter().map(|item| self.resolved(item)).collect::<Result<Vec<_>, _>>()?;
                Ok(Value::Sequence(items.into_iter().filter(|item| !item.is_null()).collect()))
            }
            plain => Ok(plain.clone()),
        }
    }

    fn intrinsic(&self, name: &str, argument: &Value) -> Result<Value, TemplateError> {
        let text_of = |value: &Value| {
            let resolved = self.resolved(value)?;
            text(&resolved).ok_or_else(|| TemplateError(format!("{name} of something that is not text")))
        };
        let items = argument.as_sequence().map_or(&[][..], Vec::as_slice);
        Ok(match (name, items) {
            ("Ref", _) => match argument.as_str() {
                Some("AWS::NoValue") => Value::Null,
                Some(target) => Value::String(self.reference(target)?),
                None => return wrong("Ref of something that is not a name"),
            },
            ("GetAtt", [id, attribute]) => Value::String(self.attribute(&text_of(id)?, &text_of(attribute)?)?),
            ("GetAtt", _) => match argument.as_str().and_then(|path| path.split_once('.')) {
                Some((id, attribute)) => Value::String(self.attribute(id, attribute)?),
                None => return wrong("GetAtt without an attribute"),
            },
            ("Sub", [pattern, variables]) => {
                let variables = self.resolved(variables)?;
                Value::String(self.substituted(&text_of(pattern)?, variables.as_mapping())?)
            }
            ("Sub", _) => Value::String(self.substituted(&text_of(argument)?, None)?),
            ("Join", [separator, Value::Sequence(parts)]) => {
                let parts = parts.iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
                Value::String(parts.join(&text_of(separator)?))
            }
            ("If", [condition, then, otherwise]) => {
                let chosen = if self.condition(&text_of(condition)?)? { then } else { otherwise };
                self.resolved(chosen)?
            }
            ("Equals", [one, other]) => Value::Bool(text_of(one)? == text_of(other)?),
            ("Not", [one]) => Value::Bool(!self.holds(one)?),
            ("And", [_, ..]) => Value::Bool(
                items.iter().map(|one| self.holds(one)).collect::<Result<Vec<_>, _>>()?.into_iter().all(|holds| holds),
            ),
            ("Or", [_, ..]) => Value::Bool(
                items.iter().map(|one| self.holds(one)).collect::<Result<Vec<_>, _>>()?.into_iter().any(|holds| holds),
            ),
            ("Condition", _) => Value::Bool(self.condition(&text_of(argument)?)?),
            _ => return wrong(format!("the intrinsic function {name} is not simulated, or has other arguments")),
        })
    }

    fn condition(&self, name: &str) -> Result<bool, TemplateError> {
        match self.template.get("Conditions").and_then(|conditions| conditions.get(name)) {
            Some(condition) => self.holds(condition),
            None => wrong(format!("there is no condition {name}")),
        }
    }

    fn holds(&self, condition: &Value) -> Result<bool, TemplateError> {
        match self.resolved(condition)? {
            Value::Bool(holds) => Ok(holds),
            other => wrong(format!("{other:?} is not a condition")),
        }
    }

    /// What `Ref` gives: a parameter, or the name by which a resource is called.
    fn reference(&self, target: &str) -> Result<String, TemplateError> {
        let Deployment { region, account, parameters, .. } = self.deployment;
        match target {
            "AWS::Region" => return Ok(region.clone()),
            "AWS::AccountId" => return Ok(account.clone()),
            "AWS::Partition" => return Ok("aws".to_owned()),
            "AWS::URLSuffix" => return Ok("amazonaws.com".to_owned()),
            "AWS::StackName" => return Ok("stack".to_owned()),
            _ => {}
        }
        if let Some(parameter) = self.template.get("Parameters").and_then(|known| known.get(target)) {
            let given = parameters.get(target).cloned().or_else(|| parameter.get("Default").and_then(text));
            return given.ok_or_else(|| TemplateError(format!("the parameter {target} has no value")));
        }
        let name = self.name(target);
        Ok(match self.kind(target)? {
            "AWS::SQS::Queue" => format!("https://sqs.{region}.amazonaws.com/{account}/{name}"),
            "AWS::SNS::Topic" => self.attribute(target, "TopicArn")?,
            _ => name,
        })
    }

    /// What `GetAtt` gives.
    fn attribute(&self, id: &str, attribute: &str) -> Result<String, TemplateError> {
        let Deployment { region, account, .. } = self.deployment;
        let name = self.name(id);
        Ok(match (self.kind(id)?, attribute) {
            ("AWS::DynamoDB::Table", "Arn") => format!("arn:aws:dynamodb:{region}:{account}:table/{name}"),
            ("AWS::DynamoDB::Table", "StreamArn") => {
                format!("arn:aws:dynamodb:{region}:{account}:table/{name}/stream/2026-01-01T00:00:00.000")
            }
            ("AWS::S3::Bucket", "Arn") => format!("arn:aws:s3:::{name}"),
            ("AWS::SQS::Queue", "Arn") => format!("arn:aws:sqs:{region}:{account}:{name}"),
            ("AWS::SNS::Topic", "TopicArn" | "Arn") => format!("arn:aws:sns:{region}:{account}:{name}"),
            ("AWS::Serverless::Function", "Arn") => format!("arn:aws:lambda:{region}:{account}:function:{name}"),
            (kind, _) => return wrong(format!("the attribute {attribute} of {id}, {kind}, is not simulated")),
        })
    }

    fn kind(&self, id: &str) -> Result<&str, TemplateError> {
        let resource = self.template.get("Resources").and_then(|resources| resources.get(id));
        let kind = resource.and_then(|resource| resource.get("Type")).and_then(Value::as_str);
        kind.ok_or_else(|| TemplateError(format!("there is no {id}")))
    }

    fn name(&self, id: &str) -> String {
        self.deployment.names.get(id).cloned().unwrap_or_else(|| id.to_owned())
    }

    /// A text with `${…}` replaced.
    fn substituted(&self, pattern: &str, variables: Option<&Mapping>) -> Result<String, TemplateError> {
        let mut parts = pattern.split("${");
        let mut made = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let Some((name, rest)) = part.split_once('}') else { return wrong(format!("an open ${{ in {pattern}")) };
            let own = variables.and_then(|variables| variables.get(name)).and_then(text);
            let meant = match (own, name.strip_prefix('!'), name.split_once('.')) {
                (Some(own), ..) => own,
                (None, Some(literal), _) => ["${", literal, "}"].concat(),
                (None, None, Some((id, attribute))) => self.attribute(id, attribute)?,
                (None, None, None) => self.reference(name)?,
            };
            made.extend([&meant, rest]);
        }
        Ok(made)
    }

    /// A text with its secrets. Source: *`CloudFormation` User Guide*, "Using dynamic references to specify template
    /// values".
    fn with_secrets(&self, text: &str) -> Result<String, TemplateError> {
        const START: &str = "{{resolve:secretsmanager:";
        let mut parts = text.split(START);
        let mut made = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let Some((name, rest)) = part.split_once("}}") else { return wrong("an open {{resolve") };
            let name = name.split(':').next().unwrap_or(name);
            let Some(secret) = self.deployment.secrets.get(name) else { return wrong(format!("no secret {name}")) };
            made += secret;
            made += rest;
        }
        Ok(made)
    }
}

/// The long form of an intrinsic function, `{"Fn::Sub": …}`.
fn long_form(mapping: &Mapping) -> Option<(&str, &Value)> {
    let (name, argument) = mapping.iter().next().filter(|_| mapping.len() == 1)?;
    let name = name.as_str()?;
    match name.strip_prefix("Fn::") {
        Some(name) => Some((name, argument)),
        None => (name == "Ref").then_some((name, argument)),
    }
}

/// The properties of a function over those of all. Source: *SAM Developer Guide*, "Globals section of the SAM template",
/// "Overridable globals": maps are merged, lists are joined, and anything else is replaced.
fn merged(globals: Value, own: Value) -> Value {
    match (globals, own) {
        (Value::Mapping(mut globals), Value::Mapping(own)) => {
            for (name, value) in own {
                let value = match globals.remove(&name) {
                    Some(global) => merged(global, value),
                    None => value,
                };
                globals.insert(name, value);
            }
            Value::Mapping(globals)
        }
        (Value::Sequence(globals), Value::Sequence(own)) => Value::Sequence(globals.into_iter().chain(own).collect()),
        (_, own) => own,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

/// One text, or a list of them.
fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::Sequence(items) => items.iter().map(text).collect(),
        one => Some(vec![text(one)?]),
    }
}

fn statements(policies: &Value) -> Result<Vec<Statement>, TemplateError> {
    let policies = match policies {
        Value::Null => return Ok(Vec::new()),
        Value::Sequence(policies) => policies.clone(),
        one => vec![one.clone()],
    };
    let mut statements = Vec::new();
    for policy in &policies {
        let Some(stated) = policy.get("Statement") else {
            return wrong(format!("{policy:?}: managed policies and policy templates are not simulated"));
        };
        let stated = stated.as_sequence().map_or_else(|| vec![stated.clone()], Clone::clone);
        for statement in &stated {
            let known = ["Sid", "Effect", "Action", "Resource"];
            let fields = statement.as_mapping().into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
            if let Some(unknown) = fields.into_iter().find(|field| !known.contains(field)) {
                return wrong(format!("{unknown} of a policy statement is not simulated"));
            }
            let effect = match statement.get("Effect").and_then(Value::as_str) {
                Some("Allow") => Effect::Allow,
                Some("Deny") => Effect::Deny,
                _ => return wrong("a policy statement without an effect"),
            };
            match (texts(statement.get("Action")), texts(statement.get("Resource"))) {
                (Some(actions), Some(resources)) => statements.push(Statement { effect, actions, resources }),
                _ => return wrong("a policy statement without actions or resources"),
            }
        }
    }
    Ok(statements)
}

fn read_event(event: &Value) -> Result<Event, TemplateError> {
    let properties = event.get("Properties").cloned().unwrap_or_default();
    let given = |name: &str| properties.get(name).and_then(text);
    let needed = |name: &str| given(name).ok_or_else(|| TemplateError(format!("no {name}")));
    let number = |name: &str, default: u64| properties.get(name).map_or(Some(default), whole);
    Ok(match event.get("Type").and_then(Value::as_str) {
        Some("HttpApi") => Event::Http {
            method: given("Method").unwrap_or_else(|| "ANY".to_owned()).to_uppercase(),
            path: given("Path").unwrap_or_else(|| "$default".to_owned()),
        },
        Some("Schedule") => Event::Schedule { expression: needed("Schedule")? },
        Some("ScheduleV2") => Event::Schedule { expression: needed("ScheduleExpression")? },
        Some("DynamoDB") => {
            let filters = properties.get("FilterCriteria").and_then(|criteria| criteria.get("Filters"));
            let filters = filters.and_then(Value::as_sequence).into_iter().flatten();
            let patterns = filters.map(|filter| filter.get("Pattern").and_then(Value::as_str).unwrap_or_default());
            Event::Stream {
                stream: needed("Stream")?,
                batch: number("BatchSize", 100).unwrap_or(100),
                retries: properties.get("MaximumRetryAttempts").and_then(whole),
                patterns: patterns
                    .map(|pattern| serde_json::from_str(pattern).map_err(|error| TemplateError(error.to_string())))
                    .collect::<Result<_, _>>()?,
            }
        }
        Some("CloudWatchLogs") => {
            let pattern = needed("FilterPattern")?;
            // Source: "Filter pattern syntax for metric filters, subscription filters", "Filter pattern syntax for JSON
            // log events". Of it, only that a field is there is simulated.
            let field = pattern.strip_prefix("{ $.").and_then(|rest| rest.strip_suffix(" = * }"));
            let Some(field) = field else { return wrong(format!("the pattern {pattern} is not simulated")) };
            Event::Logs { group: needed("LogGroupName")?, field: field.to_owned() }
        }
        Some("SQS") => Event::Queue { queue: needed("Queue")?, batch: number("BatchSize", 10).unwrap_or(10) },
        other => return wrong(format!("events of type {other:?} are not simulated")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = r#"
Parameters:
  Host: { Type: String }
  Quota: { Type: Number, Default: 7 }
Conditions:
  HasHost: !Not [!Equals [!Ref Host, ""]]
  Both: !And [!Condition HasHost, !Equals [!Ref Quota, "7"]]
Globals:
  Function:
    MemorySize: 256
    Timeout: 29
    Environment: { Variables: { TABLE: !Ref Table, QUOTA: !Ref Quota, KEYS: "{{resolve:secretsmanager:keys}}" } }
Resources:
  Api: { Type: AWS::Serverless::HttpApi }
  Table: { Type: AWS::DynamoDB::Table }
  Bucket: { Type: AWS::S3::Bucket }
  Jobs: { Type: AWS::SQS::Queue }
  One:
    Type: AWS::Serverless::Function
    Properties:
      Timeout: 900
      ReservedConcurrentExecutions: 2
      Environment:
        Variables:
          QUOTA: 8
          WHERE: !If [Both, !Sub "${Host}/${AWS::Region}", !Ref AWS::NoValue]
          ARN: { "Fn::GetAtt": [Bucket, Arn] }
          NOTHING: !If [HasHost, !Ref "AWS::NoValue", "x"]
      Policies:
        - Statement:
            - { Effect: Allow, Action: [dynamodb:GetItem], Resource: !GetAtt Table.Arn }
            - { Effect: Allow, Action: s3:GetObject, Resource: !Sub "${Bucket.Arn}/*" }
      Events:
        A: { Type: HttpApi, Properties: { ApiId: !Ref Api, Method: any, Path: "/v1/{proxy+}" } }
        B: { Type: Schedule, Properties: { Schedule: rate(1 hour) } }
        C: { Type: SQS, Properties: { Queue: !GetAtt Jobs.Arn } }
        D: { Type: DynamoDB, Properties: { Stream: !GetAtt Table.StreamArn, BatchSize: 1, FilterCriteria: { Filters: [{ Pattern: '{"eventName": ["INSERT"]}' }] } } }
  Two:
    Type: AWS::Serverless::Function
    Metadata: { BuildProperties: { Binary: second } }
"#;

    fn deployment() -> Deployment {
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        Deployment {
            parameters: pair("Host", "h"),
            names: pair("Table", "rows"),
            secrets: pair("keys", "k:1"),
            ..Deployment::default()
        }
    }

    /// SAM Developer Guide, "Globals section"; `CloudFormation` User Guide, "Intrinsic function reference".
    #[test]
    fn a_function_is_read_with_globals_and_with_everything_resolved() {
        let functions = functions(TEMPLATE, &deployment()).unwrap();
        let [one, two] = &functions[..] else { panic!("{functions:?}") };
        assert_eq!((one.memory, one.timeout.as_secs(), one.concurrency), (256, 900, Some(2)));
        assert_eq!((two.memory, two.timeout.as_secs(), two.concurrency), (256, 29, None));
        assert_eq!((one.binary.as_str(), two.binary.as_str()), ("one", "second"));
        let variables: Vec<(&str, &str)> = one.environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("ARN", "arn:aws:s3:::Bucket"),
            ("KEYS", "k:1"),
            ("QUOTA", "8"),
            ("TABLE", "rows"),
            ("WHERE", "h/eu-test-1"),
        ];
        assert_eq!(variables, expected);
        assert_eq!(two.environment["QUOTA"], "7");
        let resources: Vec<&str> = one.statements.iter().map(|statement| &*statement.resources[0]).collect();
        assert_eq!(resources, ["arn:aws:dynamodb:eu-test-1:000000000000:table/rows", "arn:aws:s3:::Bucket/*"]);
        assert_eq!(one.statements[1].actions, ["s3:GetObject"]);
        assert_eq!(one.events[0], Event::Http { method: "ANY".to_owned(), path: "/v1/{proxy+}".to_owned() });
        assert_eq!(one.events[1], Event::Schedule { expression: "rate(1 hour)".to_owned() });
        assert_eq!(
            one.events[2],
            Event::Queue { queue: "arn:aws:sqs:eu-test-1:000000000000:Jobs".to_owned(), batch: 10 }
        );
        let Event::Stream { batch: 1, retries: None, patterns, .. } = &one.events[3] else { panic!("{one:?}") };
        assert_eq!(patterns[0]["eventName"][0], "INSERT");
        let record = |name: &str| serde_json::json!({ "eventName": name, "dynamodb": {} });
        assert!(one.events[3].takes(&record("INSERT")) && !one.events[3].takes(&record("REMOVE")));
        assert!(!one.events[3].takes(&serde_json::json!({})) && !one.events[1].takes(&record("INSERT")));
    }

    #[test]
    fn the_properties_of_a_resource_are_read_with_everything_resolved() {
        let table = "Table: { Type: AWS::DynamoDB::Table, Properties: { Keys: [!Ref Host, !If [Both, 1, !Ref AWS::NoValue]], Protected: true, Of: !If [Both, !Ref AWS::NoValue, x] } }";
        let template = TEMPLATE.replace("Table: { Type: AWS::DynamoDB::Table }", table);
        let found = properties(&template, &deployment(), "Table").unwrap();
        assert_eq!(found, serde_json::json!({ "Keys": ["h", 1], "Protected": true }));
        assert!(properties(TEMPLATE, &deployment(), "Bucket").unwrap().is_null());
        assert!(properties(TEMPLATE, &deployment(), "Tabel").unwrap_err().to_string().contains("Tabel"));
    }

    #[test]
    fn what_can_not_be_resolved_is_an_error_that_names_it() {
        let with =
            |from: &str, to: &str| functions(&TEMPLATE.replace(from, to), &deployment()).unwrap_err().to_string();
        for (from, to, said) in [
            ("!Ref Table", "!Ref Tabel", "Tabel"),
            ("!GetAtt Table.Arn", "!GetAtt Table.Color", "Color"),
            ("resolve:secretsmanager:keys", "resolve:secretsmanager:other", "other"),
            ("Type: Schedule,", "Type: Cognito,", "Cognito"),
            ("!If [Both", "!If [Neither", "Neither"),
            ("Effect: Allow, Action: [dyn", "Effect: Allow, Condition: {}, Action: [dyn", "Condition"),
            ("        - Statement:", "        - AWSLambdaExecute\n        - Statement:", "AWSLambdaExecute"),
            ("!Ref Quota,", "!Select [0, [a]],", "Select"),
        ] {
            assert!(with(from, to).contains(said), "{to}: {}", with(from, to));
        }
    }
}
