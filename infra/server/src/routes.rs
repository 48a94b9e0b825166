//! Which request goes to which function: dispatches by the prefixes of `template.yaml`, as API Gateway would.

use crate::metrics::Group;
use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use matchit::Router as Matcher;
use serde_yaml_ng::Value;
use shared::App;
use shared::http::{Routes, protected};
use std::sync::Arc;

/// The template of a deployment.
pub const TEMPLATE: &str = include_str!("../../../template.yaml");

/// A prefix of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The logical id of the function.
    pub function: String,
    /// The path, as API Gateway spells it.
    pub path: String,
}

/// The template contains something that this server does not understand.
#[derive(Debug, thiserror::Error)]
#[error("template.yaml can't be served: {0}")]
pub struct TemplateError(String);

/// The HTTP routes of a template, in its order.
pub fn of_template(template: &str) -> Result<Vec<Route>, TemplateError> {
    let wrong = |what: &str| TemplateError(what.to_owned());
    let template: Value = serde_yaml_ng::from_str(template).map_err(|error| TemplateError(error.to_string()))?;
    let resources = template.get("Resources").and_then(Value::as_mapping).ok_or_else(|| wrong("no Resources"))?;
    let mut routes = Vec::new();
    for (id, resource) in resources {
        let events = resource.get("Properties").and_then(|properties| properties.get("Events"));
        for event in events.and_then(Value::as_mapping).into_iter().flat_map(serde_yaml_ng::Mapping::values) {
            if event.get("Type").and_then(Value::as_str) != Some("HttpApi") {
                continue;
            }
            let path = event.get("Properties").and_then(|properties| properties.get("Path")).and_then(Value::as_str);
            let function = id.as_str().ok_or_else(|| wrong("a resource without a name"))?.to_owned();
            let path = path.ok_or_else(|| TemplateError(format!("an HttpApi event of {function} has no Path")))?;
            routes.push(Route { function, path: path.to_owned() });
        }
    }
    Ok(routes)
}

/// The routes of the function with a logical id of the template, and its name in the metrics.
fn function(id: &str, app: &App) -> Result<(Group, Routes), TemplateError> {
    Ok(match id {
        "Admin" => (Group("admin"), admin::router(app)),
        "Discovery" => (Group("discovery"), discovery::router(app)),
        "Imagefile" => (Group("imagefile"), imagefile::router(app)),
        "Keys" => (Group("keys"), keys::router(app)),
        "Library" => (Group("library"), library::router(app)),
        "Login" => (Group("login"), login::router(app)),
        "Oci" => (Group("oci"), oci::router(app)),
        "People" => (Group("people"), people::router(app)),
        "Shares" => (Group("shares"), shares::router(app)),
        unknown => return Err(TemplateError(format!("no crate serves the function {unknown}"))),
    })
}

/// All functions. Clones are the same.
#[derive(Debug, Clone)]
pub struct Functions(Arc<Table>);

/// Which paths lead to which of the functions, by their positions.
#[derive(Debug)]
struct Table {
    matcher: Matcher<usize>,
    functions: Vec<(Group, Routes)>,
}

impl Functions {
    /// Those of the template.
    pub fn of(app: &App) -> Result<Self, TemplateError> {
        let mut matcher = Matcher::new();
        let mut functions: Vec<(String, (Group, Routes))> = Vec::new();
        for route in of_template(TEMPLATE)? {
            let known = functions.iter().position(|(id, _)| *id == route.function);
            let index = known.unwrap_or(functions.len());
            if known.is_none() {
                functions.push((route.function.clone(), function(&route.function, app)?));
            }
            let path = route.path.replace("{proxy+}", "{*proxy}");
            matcher.insert(path, index).map_err(|error| TemplateError(format!("{}: {error}", route.path)))?;
        }
        let functions = functions.into_iter().map(|(_, function)| function).collect();
        Ok(Self(Arc::new(Table { matcher, functions })))
    }

    /// Has the function answer that a path leads to.
    pub async fn answer(self, request: Request) -> Response {
        // The function sees the path as it was sent, as behind a gateway.
        let uri = shared::http::normal(request.uri());
        let Table { matcher, functions } = &*self.0;
        let found = matcher.at(uri.path()).ok().and_then(|found| functions.get(*found.value));
        match found.cloned() {
            Some((group, routes)) => {
                let mut response = routes.answer(request).await;
                response.extensions_mut().insert(group);
                response
            }
            None => protected(shared::http::library::plain(StatusCode::NOT_FOUND, "not found")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_template_can_be_matched() {
        let mut matcher = Matcher::new();
        let routes = of_template(TEMPLATE).unwrap();
        assert!(routes.len() > 20);
        for route in &routes {
            matcher.insert(route.path.replace("{proxy+}", "{*proxy}"), route.function.clone()).unwrap();
        }
        for (path, function) in [
            ("/v1/images/acme/tools/bb:latest", "Library"),
            ("/v1/imagefile/acme/tools/bb:latest", "Imagefile"),
            ("/v2/imagefile/0123/_complete", "Imagefile"),
            ("/v2/tags/0123", "Library"),
            ("/v2/", "Oci"),
            ("/v2/_catalog", "Oci"),
            ("/v2/acme/tools/bb/manifests/latest", "Oci"),
            ("/token", "Login"),
            ("/v1/entities/", "Library"),
            ("/acme/api/container/tools/bb", "Imagefile"),
            ("/api/container/tools/bb", "Imagefile"),
            ("/api/users/a/tokens", "People"),
            ("/pks/lookup", "Keys"),
            ("/api/shares/0123", "Library"),
            ("/v1/manifests/a~b~0123/download", "Oci"),
            ("/dl/0123.abc/a.sif", "Shares"),
        ] {
            assert_eq!(matcher.at(path).unwrap().value, function, "{path}");
        }
    }
}
