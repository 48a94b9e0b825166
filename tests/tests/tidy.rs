//! Rules that no compiler checks: who imports whom, what the template says, what the tree looks like. Sources are read
//! as text.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs, reason = "a failed test panics")]

use serde_yaml_ng::Value;
use server::routes::{Route, TEMPLATE, of_template};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The top of the tree.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files that belong to the tree, by their paths from its top, with their text. Files that `.gitignore` names and
/// files that are not text are left out.
fn files() -> BTreeMap<String, String> {
    let ignored = fs::read_to_string(top().join(".gitignore")).unwrap();
    let ignored: Vec<PathBuf> = ignored.lines().map(|line| top().join(line.trim_matches('/'))).collect();
    let mut files = BTreeMap::new();
    let mut folders = vec![top().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if ignored.contains(&path) || path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && let Ok(text) = fs::read_to_string(&path)
            {
                files.insert(path.strip_prefix(top()).unwrap().to_str().unwrap().to_owned(), text);
            }
        }
    }
    assert!(files.len() > 50, "this is not the whole tree: {files:?}");
    files
}

/// The Rust sources, without comments and without the unit tests at a file's end.
fn sources() -> BTreeMap<String, String> {
    let rust = files().into_iter().filter(|(path, _)| Path::new(path).extension().is_some_and(|end| end == "rs"));
    rust.map(|(path, text)| {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        (path, lines.collect::<Vec<_>>().join("\n"))
    })
    .collect()
}

/// The sources of a folder or a file.
fn sources_of(place: &str) -> BTreeMap<String, String> {
    let mut sources = sources();
    sources.retain(|path, _| path.starts_with(place));
    assert!(!sources.is_empty(), "{place} does not exist");
    sources
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What follows each `word` that is not part of a longer one.
fn after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    text.match_indices(word)
        .filter(|(at, _)| !text[..*at].ends_with(in_word))
        .map(|(at, word)| &text[at + word.len()..])
        .collect()
}

/// Writes the paths of a `use` tree, which follow `prefix`, to `paths`. Returns what follows the tree.
fn expand<'a>(prefix: &str, tree: &'a str, paths: &mut BTreeSet<String>) -> &'a str {
    let mut tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        tree = group;
        loop {
            tree = tree.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            match tree.strip_prefix('}') {
                Some(rest) => return rest,
                None if tree.is_empty() => panic!("an unclosed group"),
                None => tree = expand(prefix, tree, paths),
            }
        }
    }
    let length = tree.find(|c: char| !in_word(c) && c != '*').unwrap_or(tree.len());
    assert!(length > 0, "can't read the path at {:?}", tree.lines().next());
    let (name, rest) = tree.split_at(length);
    let path = format!("{prefix}{name}");
    match rest.strip_prefix("::") {
        Some(more) if more.starts_with(|c: char| in_word(c) || c == '{' || c == '*') => {
            expand(&format!("{path}::"), more, paths)
        }
        _ => {
            paths.insert(path);
            rest
        }
    }
}

/// All paths that a source names in its own crate.
fn own_paths(source: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for tree in after(source, "crate::") {
        expand("", tree, &mut paths);
    }
    paths
}

/// The lines of a `Cargo.toml` that each name a dependency.
fn dependency_lines(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(top().join(folder).join("Cargo.toml")).unwrap();
    let lines = text.lines().skip_while(|line| *line != "[dependencies]").skip(1);
    lines.take_while(|line| !line.starts_with('[')).map(str::to_owned).collect()
}

/// The dependency that a line names, as Rust spells it.
fn dependency(line: &str) -> Option<String> {
    line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(|name| name.replace('-', "_"))
}

/// The dependencies in a `Cargo.toml`, as Rust spells them.
fn dependencies(folder: &str) -> BTreeSet<String> {
    dependency_lines(folder).iter().filter_map(|line| dependency(line)).collect()
}

#[test]
fn the_layers_of_shared_import_only_what_lies_below_them() {
    // Whatever is listed in a row may be imported, with all that is in it.
    for (layer, allowed) in [
        ("domain/", &["domain"][..]),
        ("rules/", &["rules", "domain"]),
        ("store/", &["store", "domain", "rules::Action", "rules::Grant", "rules::Place", "telemetry"]),
        ("auth/", &["auth", "domain", "error", "random"]),
        (
            "service/",
            &["service", "app", "auth", "changes", "domain", "error", "random", "rules", "store", "telemetry"],
        ),
        (
            "http/",
            &["http", "app", "auth::Credential", "domain", "error", "service::looks", "service::registry", "telemetry"],
        ),
        ("changes/", &["changes", "domain", "error", "rules", "store"]),
        (
            "app.rs",
            &["app", "auth", "changes", "config", "domain", "error", "random", "rules::Grant", "store", "telemetry"],
        ),
        ("app/", &["app", "auth", "config", "domain", "error", "rules", "store"]),
        ("config.rs", &["config", "domain"]),
        ("error.rs", &["error", "domain", "rules", "store"]),
        ("random.rs", &["random", "error"]),
        ("telemetry.rs", &["telemetry"]),
        ("telemetry/", &["telemetry"]),
    ] {
        for (path, source) in sources_of(&format!("shared/src/{layer}")) {
            for named in own_paths(&source) {
                let below = allowed.iter().any(|name| named == *name || named.starts_with(&format!("{name}::")));
                assert!(below, "{path} must not import crate::{named}");
            }
            // A folder inside a layer uses `super::` to leave itself, but not to leave its layer.
            let to_the_root = path == format!("shared/src/{layer}mod.rs") && source.contains("super::");
            assert!(!to_the_root && !source.contains("super::super"), "{path} leaves its layer by `super::`");
        }
    }
}

#[test]
fn every_module_of_shared_has_its_place_among_the_layers() {
    let known = [
        "app",
        "auth",
        "changes",
        "config",
        "domain",
        "error",
        "http",
        "random",
        "rules",
        "service",
        "store",
        "telemetry",
    ];
    let source = &sources()["shared/src/lib.rs"];
    let modules: BTreeSet<&str> = after(source, "mod ").iter().map(|rest| rest.split(';').next().unwrap()).collect();
    assert_eq!(modules, BTreeSet::from(known), "say above which layers a new module may import");
}

/// The rooms of `service`, each with the lower ones that it may name. A room that is not listed here may name none.
const ROOMS: [(&str, &[&str]); 30] = [
    ("access", &[]),
    ("parts", &["access"]),
    ("restore", &[]),
    ("retry", &[]),
    ("links", &["retry"]),
    ("uploads", &["access", "restore", "retry"]),
    ("create", &["access", "restore", "uploads"]),
    ("pull", &["access", "restore"]),
    ("artifact", &["access", "restore"]),
    ("share", &["access", "artifact", "pull", "restore"]),
    ("browse", &["access", "parts"]),
    ("lists", &["access", "browse", "parts"]),
    ("latest", &["access", "parts"]),
    ("search", &["access", "parts", "retry"]),
    ("settings", &["access", "retry"]),
    ("star", &["access", "retry"]),
    ("tag", &["access", "retry"]),
    ("delete", &["access", "links", "pull", "retry"]),
    ("image", &["access", "pull", "retry"]),
    ("people", &["access", "parts", "retry"]),
    ("removal", &["access", "people", "retry"]),
    ("installation", &["access", "people", "retry"]),
    ("outbox", &["access", "search"]),
    ("history", &["access"]),
    ("downloads", &["access", "retry"]),
    ("sweep", &["access", "downloads", "history", "installation", "links", "people", "removal", "share", "uploads"]),
    ("scrub", &["access"]),
    ("copy", &["access", "installation", "sweep"]),
    ("events", &["access"]),
    ("looks", &["access"]),
];

#[test]
fn the_rooms_of_service_name_only_those_below_them_and_none_names_the_registry() {
    let registry = ("registry", &["access", "restore", "create", "links", "parts", "retry", "uploads"][..]);
    let rooms: BTreeMap<&str, &[&str]> = ROOMS.into_iter().chain([registry]).collect();
    for (path, source) in sources_of("shared/src/service/") {
        let inside = path.strip_prefix("shared/src/service/").unwrap();
        let room = inside.split(['/', '.']).next().unwrap();
        if room == "mod" {
            continue;
        }
        let allowed = rooms.get(room).unwrap_or_else(|| panic!("say above what the room {room} may name"));
        let mut named = own_paths(&source);
        // In a module file, `super::` is `service`; in a folder this is true of its `mod.rs` only.
        if !inside.contains('/') || inside.ends_with("/mod.rs") {
            for tree in after(&source, "super::") {
                expand("service::", tree, &mut named);
            }
        }
        for name in named.iter().filter_map(|name| name.strip_prefix("service::")) {
            let other = name.split("::").next().unwrap();
            let below = other == room || allowed.contains(&other);
            let known = rooms.contains_key(other);
            assert!(below || !known, "{path}: the room {room} must not name service::{other}");
        }
    }
}

#[test]
fn changes_are_pure_and_each_kind_of_row_is_made_in_one_place() {
    for (path, source) in sources_of("shared/src/changes/") {
        for impure in ["async ", ".await", "App", "SystemTime", "random::", ".table", ".objects"] {
            assert!(!source.contains(impure), "{path}: `{impure}` does not belong in `changes`");
        }
    }
    // Writes are made here alone.
    for (path, source) in sources_of("shared/src/") {
        let makes = ["shared/src/changes/", "shared/src/store/"].iter().any(|place| path.starts_with(place));
        assert!(makes || after(&source, "Write::").is_empty(), "{path} makes a write: only `changes` may");
        let commits = path == "shared/src/app.rs" || path.starts_with("shared/src/store/");
        assert!(commits || !source.contains("table.write("), "{path} must write through `App::commit`");
    }
    for (row, maker) in [
        ("Tag {", "tags"),
        ("Manifest {", "manifests"),
        ("Write::epoch(", "manifests"),
        ("Account {", "accounts"),
        ("Charge {", "accounts"),
        ("Write::charge(", "accounts"),
        ("Write::limit(", "accounts"),
        ("Link {", "blobs"),
        ("Blob {", "blobs"),
        ("Event {", "events"),
        ("Share {", "shares"),
        ("ShareListed {", "shares"),
        ("About {", "about"),
        ("Counts {", "stars"),
        ("Star {", "stars"),
    ] {
        let maker = format!("shared/src/changes/{maker}.rs");
        for (path, source) in sources_of("shared/src/changes/") {
            assert!(path == maker || after(&source, row).is_empty(), "{path} says `{row}`: only {maker} may");
        }
    }
}

#[test]
fn a_service_file_has_fewer_than_400_lines_and_no_function_takes_a_tuple() {
    for (path, text) in files().iter().filter(|(path, _)| path.starts_with("shared/src/service/")) {
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines().count();
        assert!(lines < 400, "{path} has {lines} lines");
    }
    for (path, source) in sources_of("shared/src/") {
        for signature in after(&source, "fn ") {
            let arguments =
                signature.split(") -> ").next().unwrap_or_default().split(" {\n").next().unwrap_or_default();
            // A list of pairs is a list of names with their values.
            let tuple = [": (", ": &(", ": Option<("].iter().any(|start| arguments.contains(start));
            assert!(!tuple, "{path} takes a tuple: fn {}", arguments.lines().next().unwrap());
        }
    }
}

#[test]
fn key_prefixes_are_spelt_in_one_file() {
    for (path, source) in sources() {
        let keys = ["shared/src/store/keys.rs", "shared/src/store/index.rs", "tests/", "infra/embedded/"]
            .iter()
            .any(|place| path.starts_with(place));
        for letter in 'A'..='Z' {
            assert!(
                keys || !source.contains(&format!("\"{letter}#")),
                "{path} spells a key: that is for store/keys.rs"
            );
        }
    }
}

#[test]
fn words_and_rules_need_no_other_crate_than_these() {
    for (layer, allowed) in
        [("domain", &["serde", "serde_json", "thiserror", "jiff", "sha2"][..]), ("rules", &["serde", "thiserror"])]
    {
        for (path, source) in sources_of(&format!("shared/src/{layer}/")) {
            for name in dependencies("shared").iter().filter(|name| !allowed.contains(&name.as_str())) {
                assert!(after(&source, &format!("{name}::")).is_empty(), "{path} must not import {name}");
            }
            let pure = ["async fn", ".await", "std::env", "SystemTime", "Instant::now", "std::fs", "std::net"];
            for impure in pure {
                assert!(!source.contains(impure), "{path}: `{impure}` does not belong in {layer}");
            }
        }
    }
}

#[test]
fn the_aws_clients_are_named_only_where_the_stores_are() {
    let places =
        ["shared/src/store/", "shared/src/app/deployment.rs", "infra/server/src/local.rs", "infra/embedded/", "tests/"];
    for (path, source) in sources() {
        let there = places.iter().any(|place| path.starts_with(place));
        assert!(there || after(&source, "aws_sdk_").is_empty(), "{path} must not know the AWS clients");
    }
}

#[test]
fn the_http_framework_is_named_only_at_the_edge() {
    for (path, source) in sources() {
        let edge = ["shared/src/http/", "functions/", "infra/server/", "infra/gateway/", "tests/"];
        let edge = edge.iter().any(|place| path.starts_with(place));
        assert!(edge || after(&source, "axum::").is_empty(), "{path} must not know axum");
    }
}

/// The only crates that the client is made of, as Rust spells them: HTTP, a command line, and no store.
const OF_THE_CLIENT: [&str; 8] = ["anyhow", "clap", "reqwest", "serde", "serde_json", "serde_yaml_ng", "sha2", "tokio"];

#[test]
fn the_command_without_the_server_knows_no_store_and_serves_nothing() {
    let lines = dependency_lines("cli").into_iter().filter(|line| !line.contains("optional = true"));
    let always: BTreeSet<String> = lines.filter_map(|line| dependency(&line)).collect();
    assert_eq!(always, OF_THE_CLIENT.map(str::to_owned).into());
    for (path, source) in sources_of("cli/src/") {
        for name in ["aws_", "axum", "rusqlite", "lambda_http", "dynoxide", "embedded"] {
            assert!(after(&source, name).is_empty(), "{path} must not know {name}");
        }
        // What only the feature enables is named in the two modules behind it, and in `main`, which starts it.
        let behind = ["/serve.rs", "/copies.rs", "/main.rs"].iter().any(|name| path.ends_with(name));
        for name in dependencies("cli").difference(&always) {
            assert!(behind || after(&source, &format!("{name}::")).is_empty(), "{path} must not import {name}");
        }
    }
}

/// The function crates.
fn functions() -> BTreeSet<String> {
    let folders = fs::read_dir(top().join("functions")).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.path().join("Cargo.toml").exists());
    folders.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn functions_reach_the_stores_only_through_use_cases() {
    for (path, source) in sources_of("functions/") {
        // Only `/readyz` asks the stores directly, whether they answer at all.
        let source = if path.starts_with("functions/discovery/") {
            source.replace("app.table.ready()", "").replace("app.objects.ready()", "")
        } else {
            source
        };
        for store in [".table.", ".objects.", "store::table::Write", "access::system"] {
            assert!(!source.contains(store), "{path}: only use cases may say `{store}`");
        }
    }
}

#[test]
fn function_crates_never_import_each_other_and_the_server_imports_all() {
    let functions = functions();
    for name in &functions {
        let dependencies = dependencies(&format!("functions/{name}"));
        let others: Vec<_> = dependencies.intersection(&functions).collect();
        assert!(others.is_empty(), "functions/{name} imports {others:?}");
        assert!(!dependencies.contains("server"), "functions/{name} imports the server");
    }
    let served = of_template(TEMPLATE).unwrap().into_iter().map(|route| route.function.to_lowercase());
    assert!(served.collect::<BTreeSet<_>>().is_subset(&dependencies("infra/server")), "the server serves them all");
}

#[test]
fn the_gateway_of_the_tests_knows_nothing_of_ours_and_nothing_deployed_knows_it() {
    let ours: BTreeSet<String> =
        functions().into_iter().chain(["shared", "server", "embedded", "stackroom"].map(str::to_owned)).collect();
    let known = dependencies("infra/gateway");
    assert!(known.is_disjoint(&ours), "infra/gateway imports {:?}", known.intersection(&ours).collect::<Vec<_>>());
    assert!(known.iter().all(|name| !name.starts_with("aws_")), "infra/gateway knows the AWS clients");
    let crates = functions().into_iter().map(|name| format!("functions/{name}"));
    for folder in crates.chain(["shared", "cli", "infra/server", "infra/embedded"].map(str::to_owned)) {
        assert!(!dependencies(&folder).contains("gateway"), "{folder} imports a tool of the tests");
    }
}

#[test]
fn the_embedded_stores_know_the_seam_and_nothing_else_of_ours() {
    let ours: BTreeSet<String> =
        functions().into_iter().chain(["shared", "server", "gateway", "stackroom"].map(str::to_owned)).collect();
    let known: Vec<String> = dependencies("infra/embedded").intersection(&ours).cloned().collect();
    assert_eq!(known, ["shared"]);
    for (path, source) in sources_of("infra/embedded/") {
        for rest in after(&source, "shared::") {
            let seam = ["store::StoreError", "store::keys::", "store::table::"];
            assert!(seam.iter().any(|there| rest.starts_with(there)), "{path} imports shared::{}", &rest[..20]);
        }
    }
    for (path, source) in sources() {
        let there = ["shared/src/store/table", "infra/embedded/", "infra/server/src/local.rs", "tests/"];
        let there = there.iter().any(|place| path.starts_with(place));
        assert!(there || after(&source, "Backend").is_empty(), "{path} goes past the table");
    }
}

/// The server reads the routes by itself, since it must not depend on a tool of the tests.
#[test]
fn the_gateway_of_the_tests_reads_the_same_routes_as_the_server() {
    let read = stackroom_tests::functions::specs("http://127.0.0.1:1").into_iter().flat_map(|function| {
        let paths = function.events.into_iter().filter_map(|event| match event {
            gateway::template::Event::Http { path, .. } => Some(path),
            _ => None,
        });
        paths.map(move |path| Route { function: function.id.clone(), path }).collect::<Vec<_>>()
    });
    assert_eq!(read.collect::<Vec<_>>(), of_template(TEMPLATE).unwrap());
}

#[test]
fn every_test_that_runs_in_one_process_only_says_why() {
    insta::assert_snapshot!("only_in_one_process", reasons("only_in_one_process"));
}

#[test]
fn every_test_that_runs_on_our_own_stores_only_says_why() {
    insta::assert_snapshot!("only_on_our_stores", reasons("only_on_our_stores"));
    insta::assert_snapshot!("only_on_our_table", reasons("only_on_our_table"));
}

#[test]
fn every_test_that_needs_one_server_only_says_why() {
    insta::assert_snapshot!("only_on_one_server", reasons("only_on_one_server"));
}

/// The tests that a function can stop, each with the reason that it is given.
fn reasons(function: &str) -> String {
    let mut listed = String::new();
    for (path, source) in sources_of("tests/tests/").iter().filter(|(path, _)| !path.ends_with("/tidy.rs")) {
        let mut test = "";
        for line in source.lines() {
            test = after(line, "fn ").first().and_then(|rest| rest.split('(').next()).unwrap_or(test);
            if let Some(rest) = line.split_once(&format!("{function}(")).map(|(_, rest)| rest) {
                let why = rest.split('"').nth(1).unwrap_or_else(|| panic!("{path}: {test} does not say why"));
                listed.extend([path.trim_start_matches("tests/tests/"), " ", test, ": ", why, "\n"]);
            }
        }
    }
    listed
}

#[test]
fn only_sweeps_scrubs_copies_and_a_new_index_scan_the_table() {
    let places = [
        "shared/src/service/search/anew.rs",
        "shared/src/service/copy/",
        "shared/src/service/sweep/mod.rs",
        "shared/src/service/scrub.rs",
        "shared/src/store/table",
        "infra/embedded/",
        "tests/",
    ];
    for (path, source) in sources() {
        let there = places.iter().any(|place| path.starts_with(place));
        assert!(there || !source.contains(".scan("), "{path} must not scan");
    }
}

/// The template. Tags like `!Ref` are ignored, and their values are read as plain ones.
fn template() -> Value {
    serde_yaml_ng::from_str(TEMPLATE).unwrap()
}

/// The functions of the template by their logical ids.
fn functions_of_template() -> BTreeMap<String, Value> {
    let template = template();
    let resources = template["Resources"].as_mapping().unwrap().iter();
    let functions = resources.filter(|(_, resource)| resource["Type"] == "AWS::Serverless::Function");
    functions.map(|(id, resource)| (id.as_str().unwrap().to_owned(), resource.clone())).collect()
}

#[test]
fn every_function_is_allowed_only_actions_that_we_know_on_our_own_table_bucket_and_secret() {
    let on_the_table = [
        "BatchGetItem",
        "GetItem",
        "Query",
        "Scan",
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "ConditionCheckItem",
        "DescribeTable",
    ];
    let on_the_bucket = ["ListBucket", "ListBucketMultipartUploads"];
    let on_objects = ["GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"];
    for (id, function) in functions_of_template() {
        let Some(policies) = function["Properties"].get("Policies") else { continue };
        for statement in policies.as_sequence().unwrap().iter().flat_map(|policy| {
            let statements = policy["Statement"].as_sequence();
            statements.unwrap_or_else(|| panic!("{id}: write statements, not managed policies")).clone()
        }) {
            assert_eq!(statement["Effect"], "Allow");
            let (resource, (service, known)) = match &statement["Resource"] {
                Value::Tagged(tagged) => match tagged.value.as_str().unwrap() {
                    "Table.Arn" => ("Table", ("dynamodb", &on_the_table[..])),
                    "Index.Arn" => ("Index", ("dynamodb", &on_the_table[..])),
                    "Bucket.Arn" => ("Bucket", ("s3", &on_the_bucket[..])),
                    "${Bucket.Arn}/*" => ("objects", ("s3", &on_objects[..])),
                    "TokenKeysSecret" => ("the secret", ("secretsmanager", &["GetSecretValue"][..])),
                    other => panic!("{id}: {other} is not ours"),
                },
                other => panic!("{id}: {other:?} is not ours"),
            };
            for action in statement["Action"].as_sequence().unwrap() {
                let action = action.as_str().unwrap();
                let short = action.strip_prefix(service).and_then(|action| action.strip_prefix(':'));
                assert!(short.is_some_and(|short| known.contains(&short)), "{id}: {action} on {resource}");
            }
        }
    }
}

#[test]
fn only_functions_that_sweep_may_scan_the_table() {
    for (id, function) in functions_of_template() {
        let policy = serde_yaml_ng::to_string(&function["Properties"]).unwrap();
        let source: String = sources_of(&format!("functions/{}/src/", id.to_lowercase())).into_values().collect();
        assert_eq!(policy.contains("dynamodb:Scan"), source.contains("sweep::sweep"), "{id}");
    }
}

#[test]
fn the_function_that_gives_anybody_tokens_may_neither_read_the_whole_table_nor_touch_an_object() {
    let routes = of_template(TEMPLATE).unwrap();
    let serving: BTreeSet<_> = routes.iter().filter(|one| one.path == "/token").map(|one| &one.function).collect();
    assert_eq!(serving.len(), 1, "{serving:?}");
    for id in serving {
        let policy = serde_yaml_ng::to_string(&functions_of_template()[id]["Properties"]["Policies"]).unwrap();
        assert!(policy.contains("dynamodb:BatchGetItem"), "{id}: {policy}");
        for action in ["dynamodb:Scan", "dynamodb:DeleteItem", "s3:"] {
            assert!(!policy.contains(action), "{id} is allowed {action}, and anonymous callers reach it");
        }
    }
}

/// The routes of a function, as it describes them.
fn routes_of(function: &str) -> Vec<String> {
    let all = server::openapi::functions();
    let (_, described) = all.into_iter().find(|(id, _)| *id == function).unwrap();
    described.paths.paths.into_keys().collect()
}

/// An example of a path that a route matches.
fn example(route: &str) -> String {
    let parts = route.split('/').map(|part| match part.strip_prefix('{') {
        Some(rest) if rest.starts_with('*') => "acme/tools/bb:1.0",
        Some(_) => "acme",
        None => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[test]
fn the_template_leads_to_every_route_of_every_function_and_nowhere_else() {
    let template = of_template(TEMPLATE).unwrap();
    let mut matcher = matchit::Router::new();
    for route in &template {
        matcher.insert(route.path.replace("{proxy+}", "{*proxy}"), route.clone()).unwrap();
    }
    let mut led: Vec<Route> = Vec::new();
    let served: BTreeSet<&String> = template.iter().map(|route| &route.function).collect();
    for function in served {
        let routes = routes_of(function);
        assert!(!routes.is_empty(), "{function} has no routes");
        for route in routes {
            let path = example(&route);
            let found = matcher.at(&path).unwrap_or_else(|_| panic!("no path of the template leads to {route}"));
            assert_eq!(&found.value.function, function, "{route} is another function's");
            led.push(found.value.clone());
        }
    }
    for route in template {
        assert!(led.contains(&route), "{} leads to no route of {}", route.path, route.function);
    }
}

#[test]
fn every_event_takes_every_method_so_that_the_function_says_what_is_allowed() {
    for (id, function) in functions_of_template() {
        for event in function["Properties"]["Events"].as_mapping().unwrap().values() {
            let gateway = event["Type"] == "HttpApi";
            assert!(!gateway || event["Properties"]["Method"] == "ANY", "{id}: {event:?}");
        }
    }
}

#[test]
fn every_decision_is_linked_from_the_architecture_page() {
    let files = files();
    let page = files.get("docs/ARCHITECTURE.md").map(String::as_str).unwrap_or_default();
    for path in files.keys().filter_map(|path| path.strip_prefix("docs/")) {
        let decision = path.starts_with("decisions/") && Path::new(path).extension().is_some_and(|end| end == "md");
        assert!(
            !decision || page.contains(&format!("({path})")),
            "docs/{path} is not linked from docs/ARCHITECTURE.md"
        );
    }
}

#[test]
fn every_test_that_a_page_for_users_names_is_there() {
    let files = files();
    let rust = files.iter().filter(|(path, _)| Path::new(path).extension().is_some_and(|end| end == "rs"));
    let tests: BTreeSet<&str> = rust
        .flat_map(|(_, text)| after(text, "fn"))
        .filter_map(|rest| rest.trim_start().split(|c| !in_word(c)).next())
        .collect();
    let pages =
        |path: &str| path.starts_with("docs/user/") || path.starts_with("docs/admin/") || path == "docs/localstack.md";
    for (path, page) in files.iter().filter(|(path, _)| pages(path)) {
        let named = page.split("<!-- Tests of these statements:\n").nth(1).unwrap_or_default();
        let named: Vec<&str> = named.lines().take_while(|line| *line != "-->").collect();
        assert!(!named.is_empty(), "{path} names no tests");
        for test in named {
            assert!(tests.contains(test), "{path}: there is no test {test}");
        }
    }
}

/// Names in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_probe_is_listed_and_every_unverified_entry_names_its_own() {
    let files = files();
    let mut probes: BTreeMap<String, String> = BTreeMap::new();
    for path in ["cli/src/doctor/outside/mod.rs", "infra/server/src/examine.rs"] {
        for rest in after(&files[path], "name: \"") {
            let text = |rest: &str| rest.split('"').next().unwrap().to_owned();
            let checks = after(rest, "checks: \"").first().map(|rest| text(rest)).unwrap();
            let page = after(rest, "page: \"").first().map(|rest| text(rest)).unwrap();
            let (page, place) = page.split_once('#').unwrap_or((&page, ""));
            let heading = |line: &str| {
                let known = |c: char| c.is_ascii_alphanumeric() || " -_".contains(c);
                line.trim_start_matches('#').trim().to_lowercase().replace(|c| !known(c), "").replace(' ', "-")
            };
            let there = files[page].lines().any(|line| line.starts_with('#') && heading(line) == place);
            assert!(place.is_empty() || there, "{page} has no place {place}");
            assert!(probes.insert(text(rest), checks).is_none(), "two probes have one name");
        }
    }
    assert!(probes.len() > 30, "{probes:?}");

    // Entries that name a probe.
    let mut of_entries: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in files["docs/unverified.md"].split("\n### ").skip(1) {
        let heading = entry.lines().next().unwrap();
        let said: Vec<&str> = entry.lines().filter_map(|line| line.strip_prefix("Probe: ")).collect();
        let [said] = said[..] else { panic!("`{heading}` has no line `Probe:`, or several") };
        assert!(said.starts_with("none: ") || !quoted(said).is_empty(), "{heading}: {said}");
        for name in quoted(said) {
            assert!(probes.contains_key(name), "{heading}: there is no probe `{name}`");
            of_entries.entry(name).or_default().insert(heading);
        }
    }
    // The page lists each, with its entries; those without one are for everyday.
    let mut listed = BTreeSet::new();
    for row in files["docs/admin/doctor.md"].lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let name = quoted(cells[0])[0];
        let checks = probes.get(name).unwrap_or_else(|| panic!("there is no probe `{name}`"));
        assert_eq!(cells[1], checks.trim_end_matches('.'), "{name}");
        let entries = cells.get(2).copied().unwrap_or_default();
        let entries = after(entries, "[").into_iter().map(|rest| rest.split("](").next().unwrap());
        assert_eq!(entries.collect::<BTreeSet<_>>(), of_entries.remove(name).unwrap_or_default(), "{name}");
        listed.insert(name.to_owned());
    }
    assert_eq!(listed, probes.into_keys().collect());
}

/// The settings that the page for operators lists, with their defaults.
fn listed_settings() -> BTreeMap<String, String> {
    let page = files().remove("docs/admin/configuration.md").unwrap();
    let mut listed = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `STACKROOM_")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, default, unit, meaning] = cells[..] else { panic!("{line} has no four columns") };
        assert!(!unit.is_empty() && meaning.len() > 5, "{line}");
        let before = listed.insert(name.trim_matches('`').to_owned(), default.to_owned());
        assert!(before.is_none(), "{name} is listed twice");
    }
    listed
}

#[test]
fn every_setting_is_on_the_page_of_settings_with_its_default() {
    let listed = listed_settings();
    let mut read = BTreeSet::new();
    let places = ["shared/src/", "infra/", "cli/src/", "functions/"];
    for (_, source) in sources().iter().filter(|(path, _)| places.iter().any(|place| path.starts_with(place))) {
        for rest in source.split("\"STACKROOM_").skip(1) {
            let name = rest.split('"').next().unwrap();
            if name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
                read.insert(format!("STACKROOM_{name}"));
            }
        }
    }
    assert_eq!(listed.keys().cloned().collect::<BTreeSet<_>>(), read, "listed, and read");
    let config = |name: &str, value: Option<&str>| {
        let get = |asked: &str| value.filter(|_| asked == name).map(str::to_owned);
        shared::config::Config::read("http://library.example.org", get).map(|config| format!("{config:?}")).ok()
    };
    let defaults = config("", None);
    assert!(defaults.is_some());
    // For each of them, one of these is not the default.
    let others = ["1", "33", "90000", "true", "false", "open", "192.0.2.1", "https://ingest.example.org", "/files/"];
    for name in read.iter().filter(|name| sources()["shared/src/config.rs"].contains(&format!("\"{name}\""))) {
        let default = listed[name].strip_prefix('`').and_then(|default| default.strip_suffix('`'));
        if let Some(default) = default {
            assert_eq!(config(name, Some(default)), defaults, "{name} is not {default} by default");
        }
        let changes = |value: &&str| config(name, Some(value)).is_some_and(|changed| Some(changed) != defaults);
        assert!(others.iter().any(changes), "{name} changes nothing");
    }
}

/// The names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c| !in_word(c));
    words.filter(|word| ["stackroom_", "process_"].iter().any(|start| word.starts_with(start))).collect()
}

#[test]
fn every_metric_is_on_the_page_of_metrics() {
    let files = files();
    let page = &files["docs/admin/metrics.md"];
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let listed: BTreeSet<&str> = rows.flat_map(metrics_in).collect();
    let text = server::metrics::Metrics::new().text().unwrap();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let named = families.map(|(name, kind)| match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    });
    // These come with the first sweep, and with the first request.
    let later = [
        "stackroom_sweep_last_end_timestamp_seconds",
        "stackroom_http_requests_total",
        "stackroom_http_request_duration_seconds",
        "stackroom_http_request_bytes_total",
        "stackroom_http_response_bytes_total",
    ];
    let published: BTreeSet<String> = named.chain(later.map(str::to_owned)).collect();
    assert_eq!(listed, published.iter().map(String::as_str).collect());
    for name in metrics_in(page) {
        assert!(listed.contains(name.trim_end_matches("_bucket")), "{name} is no metric");
    }
    // No example of a proxy or a service leads anybody there.
    for (path, text) in files.iter().filter(|(path, _)| path.starts_with("infra/deploy/") || *path == "Containerfile") {
        assert!(!text.to_lowercase().contains("metrics"), "{path}");
    }
}

#[test]
fn every_step_of_the_story_is_a_sentence_of_the_page_that_it_follows() {
    let files = files();
    let (mut page, mut steps) = ("", 0);
    for line in files["tests/clients/story.sh"].lines() {
        if let Some(path) = line.strip_prefix("# --- docs/user/").and_then(|rest| rest.split(' ').next()) {
            page = files[&format!("docs/user/{path}")].as_str();
        }
        let quoted =
            line.strip_prefix("step ").and_then(|rest| rest.strip_prefix(['\'', '"'])?.strip_suffix(['\'', '"']));
        if let Some(sentence) = quoted {
            assert!(page.contains(sentence), "this is not in the page: {sentence}");
            steps += 1;
        }
    }
    assert!(steps > 30, "{steps}");
}

#[test]
fn every_hazard_that_the_security_page_lists_has_its_test_and_the_other_way_round() {
    let files = files();
    let listed: BTreeSet<&str> = files["SECURITY.md"]
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.starts_with("hazard_") && name.len() > 7)
        .collect();
    let rust = files.iter().filter(|(path, _)| Path::new(path).extension().is_some_and(|end| end == "rs"));
    let tests: BTreeSet<&str> = rust
        .flat_map(|(_, text)| after(text, "fn"))
        .filter_map(|rest| rest.trim_start().split(|c| !in_word(c)).next())
        .filter(|name| name.starts_with("hazard_"))
        .collect();
    assert!(listed.len() > 20, "{listed:?}");
    for name in &listed {
        assert!(tests.iter().any(|test| test.starts_with(name)), "no test begins with {name}");
    }
    for test in &tests {
        assert!(listed.iter().any(|name| test.starts_with(name)), "SECURITY.md does not list {test}");
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace_which_forbid_unsafe_code() {
    let files = files();
    assert!(files["Cargo.toml"].contains("[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with("/Cargo.toml")) {
        assert!(text.contains("[lints]\nworkspace = true"), "{path} does not take the lints of the workspace");
    }
}

#[test]
fn the_compiler_is_the_same_everywhere() {
    let files = files();
    let version = after(&files["rust-toolchain.toml"], "channel = ")[0].split('"').nth(1).unwrap();
    let least = after(&files["Cargo.toml"], "rust-version = ")[0].split('"').nth(1).unwrap();
    assert!(version == least || version.starts_with(&format!("{least}.")), "{version} is not {least}");
    assert!(files["Containerfile"].contains(&format!("/rust:{version}-")), "Containerfile builds with another Rust");
    assert!(files["README.md"].contains(&format!("Rust {least} or newer")), "README.md asks for another Rust");
}

/// Files that other tools write, and the seeds of the fuzz targets, in which every byte counts.
fn foreign(path: &str) -> bool {
    if path.starts_with("tests/fuzz/corpus/") {
        return true;
    }
    let ends = [".snap", ".go", "LICENSE", "Cargo.lock", "/go.mod", "/sums"];
    ends.iter().any(|end| path.ends_with(end))
}

#[test]
fn no_line_has_tabs_or_blanks_at_its_end() {
    for (path, text) in files().iter().filter(|(path, _)| !foreign(path)) {
        for (line, number) in text.lines().zip(1..) {
            assert!(!line.contains('\t') && line.trim_end() == line, "{path}:{number} has a tab or blanks at its end");
        }
        assert!(text.is_empty() || text.ends_with('\n'), "{path} has no end of line at its end");
    }
}

#[test]
fn what_is_left_to_do_has_a_page_in_docs() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    let files = files();
    for (path, text) in files.iter().filter(|(path, _)| !foreign(path)) {
        for (line, number) in text.lines().zip(1..) {
            // Not a template for `mktemp`.
            if marks.iter().all(|mark| after(line, mark).iter().all(|rest| rest.starts_with(in_word))) {
                continue;
            }
            let page =
                line.split(|c: char| c.is_whitespace() || "()`,:".contains(c)).find(|word| word.starts_with("docs/"));
            assert!(page.is_some_and(|page| files.contains_key(page)), "{path}:{number} has no page in docs/");
        }
    }
}

#[test]
fn the_tree_says_nothing_of_the_place_where_it_was_written() {
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("cla", "ude"), concat!("sub", "agent")];
    for (path, text) in files() {
        let text = text.to_lowercase();
        for word in words {
            let line = text.lines().zip(1..).find(|(line, _)| line.contains(word));
            assert!(line.is_none(), "{path}:{} says `{word}`", line.unwrap().1);
        }
    }
}

#[test]
fn every_script_says_first_what_it_does() {
    let files = files();
    let scripts = files.iter().filter(|(_, text)| text.starts_with("#!"));
    let scripts: Vec<_> = scripts.chain(files.iter().filter(|(path, _)| path.starts_with("scripts/"))).collect();
    assert!(scripts.len() > 3);
    for (path, text) in scripts {
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("#!"), "{path} does not say which program runs it");
        let second = lines.next().unwrap_or_default();
        let says = second.strip_prefix("# ").or(second.strip_prefix("\"\"\"")).unwrap_or_default();
        assert!(says.len() > 20 && says.contains(' '), "{path} does not say in its second line what it does");
    }
}
