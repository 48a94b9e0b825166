//! What a path names, and the route for it.

/// A path without `library://` and without slashes at its ends.
pub(crate) fn plain(path: &str) -> &str {
    path.strip_prefix("library://").unwrap_or(path).trim_matches('/')
}

/// The route of an entity, collection, container, image or another repository. Two parts name a collection, unless they
/// are said to name a `repository`.
pub(crate) fn route(path: &str, repository: bool) -> Vec<&str> {
    let kind = match path.split('/').count() {
        _ if path.contains(':') => ["v1", "images"],
        1 => ["v1", "entities"],
        2 if !repository => ["v1", "collections"],
        3 => ["v1", "containers"],
        _ => ["api", "repositories"],
    };
    kind.into_iter().chain(path.split('/')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_parts_says_what_a_path_names() {
        for (path, kind) in [
            ("alice", "entities"),
            ("library://alice/tools", "collections"),
            ("library:///alice/tools/bb/", "containers"),
            ("alice/tools/bb:1.0", "images"),
            ("alice/tools/bb/cc", "repositories"),
        ] {
            assert_eq!(route(plain(path), false).get(1), Some(&kind), "{path}");
        }
        assert_eq!(route("alice/files", true), ["api", "repositories", "alice", "files"]);
    }
}
