//! Who may see a repository.

use serde::{Deserialize, Serialize};

/// It applies to both protocols. It is set when the repository is created; later pushes never change it.
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
    /// All visibilities, widest first.
    pub const ALL: [Self; 3] = [Self::Public, Self::Internal, Self::Private];
}
