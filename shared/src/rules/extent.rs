//! What a credential reaches, and how long it lasts. Nothing that it makes may reach further, or last longer.

use crate::domain::{Time, TokenScope};

/// The scope of a credential, and its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// What it may be used for.
    pub scope: TokenScope,
    /// When it ends; `None`: never.
    pub until: Option<Time>,
}

/// How one credential goes beyond another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// In what it may be used for.
    Scope,
    /// In time: the other one ends then.
    End(Time),
}

impl Extent {
    /// What a password gives: all rights of its user, without an end.
    pub fn whole() -> Self {
        Self { scope: TokenScope::full(), until: None }
    }

    /// Whether another one lies within this one.
    ///
    /// # Errors
    /// How it goes beyond.
    pub fn includes(&self, other: &Self) -> Result<(), Beyond> {
        if !self.scope.allows_all_of(&other.scope) {
            return Err(Beyond::Scope);
        }
        match (self.until, other.until) {
            (Some(end), None) => Err(Beyond::End(end)),
            (Some(end), Some(later)) if later > end => Err(Beyond::End(end)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_narrower_or_shorter_includes_something_whole() {
        let extent = |scope: &str, until: Option<i64>| Extent { scope: scope.parse().unwrap(), until: until.map(Time) };
        let whole = Extent::whole();
        let narrow = extent("pull@acme", None);
        let short = Extent { until: Some(Time(10)), ..Extent::whole() };
        assert_eq!(whole.includes(&whole), Ok(()));
        assert_eq!(whole.includes(&narrow), Ok(()));
        assert_eq!(whole.includes(&short), Ok(()));
        assert_eq!(narrow.includes(&whole), Err(Beyond::Scope));
        assert_eq!(short.includes(&whole), Err(Beyond::End(Time(10))));
        assert_eq!(short.includes(&extent("pull@acme", Some(10))), Ok(()));
        assert_eq!(short.includes(&extent("pull@acme", Some(11))), Err(Beyond::End(Time(10))));
        assert_eq!(extent("pull", None).includes(&extent("pull,push", None)), Err(Beyond::Scope));
    }
}
