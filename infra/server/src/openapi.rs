//! The `OpenAPI` document of the whole HTTP interface, put together from the descriptions of all functions' routes.
//!
//! A handler describes only itself: method and path, parameters, bodies, its own refusals. This module adds the rules
//! that hold for all handlers:
//!
//! - Every JSON answer is an object with the answer as its `data`, unless the handler marks it `x-bare`. If a route
//!   has an `after`, `page.next` gives its next value.
//! - Every refusal has one form, the schema `Error`.
//! - A route that identifies the caller can meet a bad token (401), an unreachable store (503), or an error of ours
//!   (500).
//! - A route with parameters or a body can find them invalid (400), or the body too long (413).
//! - Reading can be anonymous, writing can't, unless the handler says otherwise.

use http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// The meanings of the operations' tags, in the order of the document.
const TAGS: [(&str, &str); 18] = [
    ("discovery", "The first requests of every client"),
    ("entities", "A user's or group's own space, with a quota of its own"),
    ("collections", "The second level, inside an entity"),
    ("containers", "Named sets of images, inside a collection"),
    ("images", "One SIF file, by its hash"),
    ("tags", "Names of images in a container, one image for each architecture"),
    ("search", "Search for all of these"),
    ("uploads", "Uploads of images, by presigned URLs of the object store"),
    ("downloads", "Downloads of images, by presigned URLs of the object store"),
    ("shares", "URLs that let their holders download one image"),
    ("stars", "Containers that users have marked"),
    ("shub", "Lookups for `shub://`"),
    (
        "registry",
        "The OCI registry, which follows the OCI distribution specification 1.1; its errors have the form defined there",
    ),
    ("keys", "A stand-in for the keyserver, which keeps no keys"),
    ("accounts", "Login, tokens, and who the caller is"),
    ("groups", "Groups, members, robots and invitations"),
    ("events", "The logs of changes: who did what, when, and from where"),
    ("administration", "Users, tokens, quotas and sweeping"),
];

/// The descriptions of refusals for which an operation gives none of its own.
const REFUSALS: [(StatusCode, &str); 11] = [
    (StatusCode::BAD_REQUEST, "The request can't be used; the message says why"),
    (StatusCode::UNAUTHORIZED, "A token is required but missing, or it is invalid, expired or revoked"),
    (StatusCode::FORBIDDEN, "The caller or the token is not permitted to do that, or the container is read-only"),
    (StatusCode::NOT_FOUND, "It does not exist, or the caller may not know that it exists"),
    (StatusCode::CONFLICT, "It conflicts with the current state"),
    (StatusCode::GONE, "It was there, and is over"),
    (StatusCode::PRECONDITION_FAILED, "It is not empty, and a cascade was not asked for"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is longer than the route accepts"),
    (StatusCode::INTERNAL_SERVER_ERROR, "An error in the server"),
    (StatusCode::SERVICE_UNAVAILABLE, "The store can't be reached, try again later"),
    (StatusCode::INSUFFICIENT_STORAGE, "The entity's quota has no room for it"),
];

/// The functions by their logical ids, with the descriptions of their routes. Paths are in the router's syntax.
pub fn functions() -> [(&'static str, OpenApi); 9] {
    [
        ("Admin", admin::openapi()),
        ("Discovery", discovery::openapi()),
        ("Imagefile", imagefile::openapi()),
        ("Keys", keys::openapi()),
        ("Library", library::openapi()),
        ("Login", login::openapi()),
        ("Oci", oci::openapi()),
        ("People", people::openapi()),
        ("Shares", shares::openapi()),
    ]
}

/// The document.
pub fn document() -> Value {
    let (mut paths, mut schemas) =
        (Map::new(), Map::from_iter([("Error".to_owned(), error()), registry_errors(), page()]));
    for (_, described) in functions() {
        for (path, item) in entries(&json!(described.paths)) {
            let operations = entries(item).map(|(method, operation)| (method.clone(), complete(method, operation)));
            // A wildcard for several segments is written as one parameter.
            paths.insert(path.replace("{*", "{"), operations.collect());
        }
        let own = described.components.unwrap_or_default().schemas;
        schemas.extend(own.into_iter().map(|(name, schema)| (name, json!(schema))));
    }
    let refusals = REFUSALS.iter().map(|(status, meaning)| (name(*status), refusal(meaning)));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stackroom",
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": "The library API of SingularityCE and Apptainer, and an API for administration.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache License 2.0", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "security": [{}, { "bearer": [] }],
        "tags": TAGS.map(|(name, description)| json!({ "name": name, "description": description })),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": refusals.collect::<Map<_, _>>(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A user's token" },
                "basic": { "type": "http", "scheme": "basic", "description": "A user's name, with their password or a token" },
            },
        },
    })
}

/// The document as in `docs/openapi.json`.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// The form of every refusal.
fn error() -> Value {
    let code = json!({ "type": "integer", "description": "The HTTP status" });
    let message = json!({ "type": "string", "description": "A sentence for the user" });
    let inside = object(&json!({ "code": code, "message": message }));
    let again = json!({ "type": "string", "description": "The same sentence, for clients that look here" });
    object(&json!({ "error": inside, "message": again }))
}

/// The form of every refusal of the registry.
fn registry_errors() -> (String, Value) {
    let code = json!({ "type": "string", "description": "An error code of the specification" });
    let message = json!({ "type": "string", "description": "A sentence for the user" });
    let one = object(&json!({ "code": code, "message": message }));
    ("RegistryErrors".to_owned(), object(&json!({ "errors": { "type": "array", "items": one } })))
}

fn page() -> (String, Value) {
    let next = json!({ "type": "string", "description": "The `after` of the next request; empty on the last page" });
    ("Page".to_owned(), object(&json!({ "next": next })))
}

/// An object that has all of these properties.
fn object(properties: &Value) -> Value {
    let names: Vec<&String> = entries(properties).map(|(name, _)| name).collect();
    json!({ "type": "object", "required": names, "properties": properties })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn refusal(meaning: &str) -> Value {
    refusal_as("Error", meaning)
}

fn refusal_as(schema: &str, meaning: &str) -> Value {
    json!({ "description": meaning, "content": { "application/json": { "schema": reference("schemas", schema) } } })
}

/// The name of a refusal among the components, like `NotFound`.
fn name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace(' ', "")
}

/// An operation, with everything that all operations of its kind share.
fn complete(method: &str, operation: &Value) -> Value {
    let public = operation["security"] == json!([{}]);
    let body = operation.get("requestBody").is_some();
    // This operation answers 404 for a bad token.
    let tells = operation["operationId"] == "token_status";
    let parameters = || operation["parameters"].as_array().into_iter().flatten();
    let given = body || parameters().count() > 0;
    let common =
        [("400", !public && given), ("401", !public && !tells), ("413", body), ("500", !public), ("503", !public)];
    let common = common.into_iter().filter(|(_, may)| *may).map(|(status, _)| (status.to_owned(), json!({})));
    let own = entries(&operation["responses"]).map(|(status, response)| (status.clone(), response.clone()));
    let responses: Map<_, _> = common.chain(own).collect();
    let pages = parameters().any(|one| one["name"] == "after");
    let registry = operation["tags"] == json!(["registry"]);
    let formed = responses.iter().map(|(status, response)| {
        (status.clone(), if registry { registry_form(status, response) } else { form(status, response, pages) })
    });

    let mut whole: Map<_, _> = entries(operation).map(|(name, value)| (name.clone(), value.clone())).collect();
    whole.insert("responses".to_owned(), formed.collect());
    if method != "get" {
        whole.entry("security").or_insert(json!([{ "bearer": [] }]));
    }
    json!(whole)
}

/// A response of the registry, which has no envelope, in its form.
fn registry_form(status: &str, response: &Value) -> Value {
    let Ok(status) = status.parse::<StatusCode>() else { return response.clone() };
    let meaning = response["description"].as_str().filter(|meaning| !meaning.is_empty());
    let meaning = meaning.or(status.canonical_reason()).unwrap_or_default();
    if status.is_client_error() || status.is_server_error() {
        return refusal_as("RegistryErrors", meaning);
    }
    let mut formed: Map<_, _> = entries(response).map(|(name, value)| (name.clone(), value.clone())).collect();
    formed.remove("x-bare");
    formed.insert("description".to_owned(), json!(meaning));
    json!(formed)
}

/// A response in its form.
fn form(status: &str, response: &Value, pages: bool) -> Value {
    let Ok(status) = status.parse::<StatusCode>() else { return response.clone() };
    let meaning = response["description"].as_str().filter(|meaning| !meaning.is_empty());
    if status.is_client_error() || status.is_server_error() {
        return meaning.map_or_else(|| reference("responses", &name(status)), refusal);
    }
    let mut formed: Map<_, _> = entries(response).map(|(name, value)| (name.clone(), value.clone())).collect();
    formed.insert("description".to_owned(), json!(meaning.or(status.canonical_reason())));
    let bare = formed.remove("x-bare").is_some() || status.is_redirection();
    let nothing = json!({ "application/json": { "schema": { "type": "object" } } });
    let content = response.get("content").unwrap_or(&nothing);
    if let Some(answer) = content.get("application/json").filter(|_| !bare) {
        let mut properties = Map::from_iter([("data".to_owned(), answer["schema"].clone())]);
        if pages {
            properties.insert("page".to_owned(), reference("schemas", "Page"));
        }
        let enveloped = object(&json!(properties));
        formed.insert("content".to_owned(), json!({ "application/json": { "schema": enveloped } }));
    }
    json!(formed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Each operation, with its path.
    fn operations(document: &Value) -> Vec<(&String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| item.as_object().unwrap().values().map(move |one| (path, one))).collect()
    }

    #[test]
    fn openapi_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let text = text();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap();
        let differs = kept.lines().zip(text.lines()).find(|(kept, text)| kept != text);
        assert!(
            kept == text,
            "docs/openapi.json differs from the routes, at {differs:?}; to update it: UPDATE=1 cargo test -p server openapi"
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_and_a_tag_that_is_explained() {
        let document = document();
        let mut names = BTreeSet::new();
        let mut used = BTreeSet::new();
        for (path, operation) in operations(&document) {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is used twice, the second time at {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{path}: {operation}");
            let [tag] = operation["tags"].as_array().unwrap().as_slice() else { panic!("{path} needs one tag") };
            used.insert(tag.as_str().unwrap());
        }
        assert_eq!(used, TAGS.map(|(tag, _)| tag).into());
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        let document = document();
        for (path, operation) in operations(&document) {
            let named: BTreeSet<&str> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let described = parameters.filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap());
            assert_eq!(described.collect::<BTreeSet<_>>(), named, "{path}");
        }
    }

    #[test]
    fn no_two_functions_give_one_name_to_two_schemas() {
        let mut names = BTreeSet::from(["Error".to_owned(), "Page".to_owned()]);
        for (function, described) in functions() {
            for name in described.components.unwrap().schemas.into_keys() {
                assert!(names.insert(name.clone()), "{function} and another function both have a schema {name}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let (document, text) = (document(), text());
        for reference in text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
