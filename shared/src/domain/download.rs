//! Downloads, as they are counted.

use super::{OciDigest, Repository, TagName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The way by which something was downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Door {
    /// The library's protocol.
    Library,
    /// The registry's.
    Registry,
    /// A share: a link that needs no login.
    Share,
}

impl Door {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Library, "library"), (Self::Registry, "registry"), (Self::Share, "share")];
}

/// One download.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Download {
    /// The repository.
    pub repository: Repository,
    /// The image: for a SIF image the digest of its bytes by whatever way it went, otherwise that of its manifest. None
    /// if an index was fetched, out of which the client then chooses an image and fetches that.
    pub image: Option<OciDigest>,
    /// The tag that it was asked for by.
    pub tag: Option<TagName>,
    /// The way.
    pub door: Door,
}

impl fmt::Display for Download {
    /// The way, the repository, the image and the tag with spaces between them, and `-` for what there is not: how it
    /// stands in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let door = Door::ALL.iter().find(|(door, _)| *door == self.door).map_or("", |(_, name)| name);
        write!(f, "{door} {} ", self.repository)?;
        match &self.image {
            Some(image) => write!(f, "{image} ")?,
            None => f.write_str("- ")?,
        }
        f.write_str(self.tag.as_ref().map_or("-", TagName::as_str))
    }
}

/// The text is no download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a download is a door, a repository, an image and a tag")]
pub struct DownloadError;

impl FromStr for Download {
    type Err = DownloadError;
    fn from_str(text: &str) -> Result<Self, DownloadError> {
        fn read<T: FromStr>(text: &str) -> Result<Option<T>, DownloadError> {
            if text == "-" { Ok(None) } else { text.parse().map(Some).map_err(|_| DownloadError) }
        }
        let mut parts = text.split(' ');
        let [Some(door), Some(repository), Some(image), Some(tag), None] = std::array::from_fn(|_| parts.next()) else {
            return Err(DownloadError);
        };
        let (door, _) = *Door::ALL.iter().find(|(_, name)| *name == door).ok_or(DownloadError)?;
        let repository = repository.parse().map_err(|_| DownloadError)?;
        Ok(Self { repository, image: read(image)?, tag: read(tag)?, door })
    }
}

/// Numbers of downloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downloads {
    /// By the library's protocol.
    pub library: u64,
    /// By the registry's.
    pub registry: u64,
    /// By shares.
    pub share: u64,
}

impl Downloads {
    /// So many more by a way.
    pub fn add(&mut self, door: Door, count: u64) {
        let number = match door {
            Door::Library => &mut self.library,
            Door::Registry => &mut self.registry,
            Door::Share => &mut self.share,
        };
        *number = number.saturating_add(count);
    }

    /// So many more by each way.
    pub fn more(&mut self, more: &Self) {
        for (door, count) in [(Door::Library, more.library), (Door::Registry, more.registry), (Door::Share, more.share)]
        {
            self.add(door, count);
        }
    }

    /// By all ways together.
    pub fn all(&self) -> u64 {
        self.library.saturating_add(self.registry).saturating_add(self.share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Digest;

    #[test]
    fn a_download_is_read_as_it_was_written() {
        let image = Some(Digest::of(b"image").into());
        for (door, image, tag) in [
            (Door::Library, image, Some("v1")),
            (Door::Registry, None, Some("v1")),
            (Door::Registry, image, None),
            (Door::Share, None, None),
        ] {
            let repository = "alice/tools/bb".parse().unwrap();
            let tag = tag.map(|tag| tag.parse().unwrap());
            let download = Download { repository, image, tag, door };
            assert_eq!(download.to_string().parse(), Ok(download));
        }
        for wrong in ["", "library", "library a/b/c - - -", "door a/b/c - -", "library A//b - -", "library a/b/c x -"] {
            assert_eq!(wrong.parse::<Download>(), Err(DownloadError), "{wrong}");
        }
    }
}
