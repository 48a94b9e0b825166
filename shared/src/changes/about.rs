//! What people say about an entity, a collection or a repository: the only code that makes those rows.

use super::{Changes, accounts};
use crate::domain::{Id, Said, Time};
use crate::error::Error;
use crate::rules::quota::about_rows;
use crate::store::rows::{About, Described, Row};
use crate::store::table::{Condition, Write};

/// Whom texts are about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) of: Described,
    /// Its id.
    pub(crate) id: Id,
}

/// Writes what is said about something, over what was said before. The row goes when nothing is left of it. The change
/// is recorded with that of the thing's own row, which is in the same transaction.
pub(crate) fn said(before: Option<About>, subject: Subject, said: &Said, now: Time) -> Result<Changes, Error> {
    let Subject { of, id } = subject;
    let (rows, version) = before.as_ref().map_or((0, 0), |row| (row.rows, row.version));
    let condition = if before.is_some() { Condition::Version(version) } else { Condition::Absent };
    let there = before.is_some();
    // What was said about something that was deleted says nothing about what came after it.
    let kept = before.filter(|row| row.id == id);
    let (readme, custom_data, vcs_url) = kept.map(|row| (row.readme, row.custom_data, row.vcs_url)).unwrap_or_default();
    let readme = said.readme.clone().unwrap_or(readme);
    let custom_data = said.custom_data.clone().unwrap_or(custom_data);
    let vcs_url = said.vcs_url.clone().unwrap_or(vcs_url);
    let after = about_rows((readme.len() + custom_data.len() + vcs_url.len()) as u64);
    let counted = accounts::rows(of.entity(), after.cast_signed() - rows.cast_signed());
    let row = About { of, id, readme, custom_data, vcs_url, rows: after, updated: now, version: version + 1 };
    let write = match (there, after) {
        (false, 0) => None,
        (true, 0) => Some(Write::delete(row.key(), condition)),
        _ => Some(Write::put(&row, condition)?),
    };
    Ok(Changes::unrecorded().with(write).with(counted))
}

/// Removes what was said about something that is deleted.
pub(crate) fn removed(row: &About) -> Changes {
    let counted = accounts::rows(row.of.entity(), -row.rows.cast_signed());
    Changes::unrecorded().with([Write::delete(row.key(), Condition::Version(row.version))]).with(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Readme;

    #[test]
    fn what_is_not_said_stays_and_what_was_said_of_another_goes() {
        let subject =
            |id: u8| Subject { of: Described::Container("a/b/c".parse().unwrap()), id: Id::from_random([id; 12]) };
        let about = |id: u8, version| About {
            of: subject(id).of,
            id: subject(id).id,
            readme: Readme::try_from("x".repeat(2048)).unwrap(),
            custom_data: "{}".to_owned().try_into().unwrap(),
            vcs_url: crate::domain::SourceUrl::default(),
            rows: 3,
            updated: Time(0),
            version,
        };
        let new = Said { vcs_url: Some("https://a.org".to_owned().try_into().unwrap()), ..Said::default() };
        let shown = |before: Option<About>, id, new: &Said| {
            let (writes, noted) = said(before, subject(id), new, Time(9)).unwrap().into_parts();
            assert!(noted.is_none());
            format!("{writes:?}")
        };
        let kept = shown(Some(about(1, 4)), 1, &new);
        assert!(kept.contains("Version(4)") && kept.contains("xxxx") && kept.contains("https://a.org"), "{kept}");
        let other = shown(Some(about(1, 4)), 2, &new);
        assert!(other.contains("Version(4)") && !other.contains("xxxx"), "{other}");
        assert!(other.contains("(\"rows\", -2)"), "{other}");
        let none = Said {
            readme: Some(Readme::default()),
            custom_data: Some(String::new().try_into().unwrap()),
            ..Said::default()
        };
        let gone = shown(Some(about(1, 4)), 1, &none);
        assert!(gone.contains("Delete(") && gone.contains("(\"rows\", -3)"), "{gone}");
        assert_eq!(shown(None, 1, &none), "[]");
    }
}
