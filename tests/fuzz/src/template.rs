//! The template: any text is parsed or refused, and the routes that were written are those that are read.
//!
//! An input that begins with `|` is a list of events, a line each: function, type and path. Any other is a template.

use serde_yaml_ng::{Mapping, Value};
use server::routes::{Route, of_template};

/// A mapping of one key.
fn one(key: &str, value: impl Into<Value>) -> Value {
    Mapping::from_iter([(key.into(), value.into())]).into()
}

/// Writes a template with these events, and returns the routes that it must have.
fn written(events: &str) -> (String, Vec<Route>) {
    let mut resources: Vec<(&str, Vec<(&str, &str)>)> = Vec::new();
    for line in events.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(function), Some(kind), Some(path)) = (words.next(), words.next(), words.next()) else { continue };
        match resources.iter_mut().find(|(known, _)| *known == function) {
            Some((_, events)) => events.push((kind, path)),
            None => resources.push((function, vec![(kind, path)])),
        }
    }
    let routes = resources.iter().flat_map(|(function, events)| {
        let served = events.iter().filter(|(kind, _)| *kind == "HttpApi");
        served.map(|(_, path)| Route { function: (*function).to_owned(), path: (*path).to_owned() })
    });
    let routes = routes.collect();
    let resources = resources.into_iter().map(|(function, events)| {
        let events = events.into_iter().zip(0..).map(|((kind, path), number)| {
            let event = [("Type".into(), kind.into()), ("Properties".into(), one("Path", path))];
            (Value::from(format!("Event{number}")), Value::from(Mapping::from_iter(event)))
        });
        (Value::from(function), one("Properties", one("Events", events.collect::<Mapping>())))
    });
    let template = one("Resources", resources.collect::<Mapping>());
    (serde_yaml_ng::to_string(&template).expect("a template can be written"), routes)
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(text: &str) {
    if let Some(events) = text.strip_prefix('|') {
        let (template, routes) = written(events);
        assert_eq!(of_template(&template).expect("what was written is read"), routes, "{template}");
        return;
    }
    match of_template(text) {
        Ok(routes) => {
            // However a template is spelt, it means the same.
            let value: Value = serde_yaml_ng::from_str(text).expect("it was read before");
            let Ok(plain) = serde_yaml_ng::to_string(&value) else { return };
            assert_eq!(of_template(&plain).expect("the same in plain words"), routes, "{plain}");
        }
        Err(refused) => assert!(refused.to_string().starts_with("template.yaml can't be served: ")),
    }
}
