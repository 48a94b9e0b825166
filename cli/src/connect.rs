//! `stackroom connect`: adds a library to the list of remotes of apptainer or singularity.
//!
//! `remote add` can't do it if the library listens on a port other than 443: it reads `host:port` as `scheme:path`.
//! The client's own file can hold a whole URL, which works.

use anyhow::{Context, bail};
use clap::Args;
use serde_yaml_ng::{Mapping, Value};
use std::path::{Path, PathBuf};

/// Add a library to a client's list of remotes.
#[derive(Args)]
pub(crate) struct Connect {
    /// The URL of the library.
    #[arg(env = "STACKROOM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The name of the remote.
    #[arg(long, default_value = "stackroom")]
    name: String,
    /// The client's file; by default apptainer's, and also singularity's if its folder exists.
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Connect {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            bail!("`{}` is not a URL: write http:// or https:// and a host", self.url);
        }
        let files = match &self.file {
            Some(file) => vec![file.clone()],
            None => default_files()?,
        };
        for file in files {
            self.write(&file)?;
            eprintln!("{}: the remote `{}` is now {}, and active", file.display(), self.name, self.url);
        }
        Ok(())
    }

    fn write(&self, file: &Path) -> anyhow::Result<()> {
        let old = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
        };
        let new = self.edited(&old).with_context(|| format!("{} is not a list of remotes", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
        // The file may hold tokens of other remotes.
        let temporary = file.with_extension("yaml.new");
        let written = || -> std::io::Result<()> {
            use std::io::Write;
            use std::os::unix::fs::OpenOptionsExt;
            // A new file: one that is left over may be readable by others.
            match std::fs::remove_file(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut open = std::fs::OpenOptions::new();
            let mut out = open.write(true).create_new(true).mode(0o600).open(&temporary)?;
            out.write_all(new.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&temporary, file)
        };
        written().with_context(|| format!("can't write {}", file.display()))
    }

    /// The client's file with our remote in it, and everything else as it was.
    fn edited(&self, old: &str) -> anyhow::Result<String> {
        let mut root = match serde_yaml_ng::from_str(old)? {
            Value::Null => Mapping::new(),
            Value::Mapping(root) => root,
            _ => bail!("its top level is not a mapping"),
        };
        let remotes = root.entry("Remotes".into()).or_insert_with(|| Mapping::new().into());
        let remotes = remotes.as_mapping_mut().context("`Remotes` is not a mapping")?;
        let remote = remotes.entry(self.name.as_str().into()).or_insert_with(|| Mapping::new().into());
        let remote = remote.as_mapping_mut().context("the remote is not a mapping")?;
        let url = self.url.trim_end_matches('/');
        let same = remote.get("URI").and_then(Value::as_str) == Some(url);
        if !same {
            // A token for another server must not be sent to this one.
            remote.remove("Token");
        }
        remote.insert("URI".into(), url.into());
        remote.insert("System".into(), false.into());
        remote.insert("Insecure".into(), url.starts_with("http://").into());
        root.insert("Active".into(), self.name.as_str().into());
        Ok(serde_yaml_ng::to_string(&root)?)
    }
}

fn default_files() -> anyhow::Result<Vec<PathBuf>> {
    let home = PathBuf::from(std::env::var_os("HOME").context("HOME is not set, give the file with --file")?);
    let mut files = vec![home.join(".apptainer/remote.yaml")];
    if home.join(".singularity").is_dir() {
        files.push(home.join(".singularity/remote.yaml"));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(url: &str) -> Connect {
        Connect { url: url.to_owned(), name: "lab".to_owned(), file: None }
    }

    #[test]
    fn other_remotes_and_the_token_of_the_same_server_stay() {
        let old = "Active: x\nRemotes:\n  x:\n    URI: x.org\n    Token: t\n    System: false\n  lab:\n    URI: http://h:1\n    Token: mine\n";
        let new = connect("http://h:1/").edited(old).unwrap();
        assert!(new.contains("Active: lab") && new.contains("Token: t") && new.contains("Token: mine"));
        assert!(new.contains("Insecure: true"));
        let moved = connect("https://other").edited(&new).unwrap();
        assert!(moved.contains("Token: t") && !moved.contains("mine") && moved.contains("Insecure: false"));
    }

    #[test]
    fn a_missing_file_is_begun_and_a_strange_one_left_alone() {
        assert!(connect("http://h:1").edited("").unwrap().contains("URI: http://h:1"));
        assert!(connect("http://h:1").edited("- a\n").is_err());
    }
}
