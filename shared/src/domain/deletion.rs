//! How something is deleted that has other things in it.

/// How something is to be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HowToDelete {
    /// With everything in it. Otherwise, it must be empty.
    pub cascade: bool,
    /// Even if a tag in it is frozen, or a container read-only. A user, even if a group is left without an admin.
    pub force: bool,
    /// Only say what is in it.
    pub dry_run: bool,
}
