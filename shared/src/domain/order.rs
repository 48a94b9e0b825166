//! In which order a list is wanted.

use std::fmt;
use std::str::FromStr;

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// The names, which is the order in which the rows lie.
    #[default]
    Name,
    /// The time of creation.
    Created,
    /// The time of the last change.
    Updated,
}

impl SortBy {
    /// All of them.
    const ALL: [Self; 3] = [Self::Name, Self::Created, Self::Updated];
}

impl fmt::Display for SortBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Created => "created",
            Self::Updated => "updated",
        })
    }
}

/// The order of a list: `name`, `created` or `updated`, or backwards with a `-` before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// What it is sorted by.
    pub by: SortBy,
    /// Whether the last comes first.
    pub backwards: bool,
}

/// The text is no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`sort` is one of `name`, `created` and `updated`, with a `-` before it for the last ones first")]
pub struct OrderError;

impl FromStr for Order {
    type Err = OrderError;
    fn from_str(text: &str) -> Result<Self, OrderError> {
        let (backwards, name) = text.strip_prefix('-').map_or((false, text), |name| (true, name));
        let by = SortBy::ALL.into_iter().find(|by| by.to_string() == name).ok_or(OrderError)?;
        Ok(Self { by, backwards })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_word_with_or_without_a_sign() {
        assert_eq!("name".parse(), Ok(Order::default()));
        assert_eq!("-created".parse(), Ok(Order { by: SortBy::Created, backwards: true }));
        for wrong in ["", "-", "Name", "--name", "size", "name "] {
            assert_eq!(wrong.parse::<Order>(), Err(OrderError), "{wrong}");
        }
    }
}
