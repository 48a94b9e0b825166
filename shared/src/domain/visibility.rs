//! Who may see a repository.

use serde::{Deserialize, Serialize};

/// The same on every door. Set when the repository is created; later pushes never change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everyone who knows the path, without a login.
    Public,
    /// Everyone who is logged in and knows the path.
    Internal,
    /// Its readers.
    Private,
}

impl Visibility {
    /// All of them, widest first.
    pub const ALL: [Self; 3] = [Self::Public, Self::Internal, Self::Private];
}
