//! What the URLs of uploads fix.

/// What the URL of an upload fixes of its bytes, whose digest the client announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pins {
    /// The bytes: the store itself refuses others.
    #[default]
    Bytes,
    /// Only the header that says their digest, which clients of the library send with each part. Some stores refuse a
    /// header that is not signed, and don't compare it with the bytes. So we read and hash them.
    Header,
    /// Nothing: we read and hash them.
    Nothing,
}

impl std::fmt::Display for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "true",
            Self::Header => "header",
            Self::Nothing => "false",
        })
    }
}
