//! Rows as `DynamoDB` keeps them: the members of a row's JSON object are attributes.

use super::StoreError;
use super::backend::Text;
use super::write::TAGS;
use crate::store::keys::Key;
use aws_sdk_dynamodb::types::AttributeValue;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeMap, SerializeSeq, Serializer};
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// A row with its key, as `DynamoDB` has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The attributes of a key.
pub(super) fn of_key(key: Key) -> Item {
    HashMap::from([("pk".to_owned(), AttributeValue::S(key.pk)), ("sk".to_owned(), AttributeValue::S(key.sk))])
}

/// The attributes of a row, without its key.
pub(super) fn of_text(text: &Text) -> Result<Item, StoreError> {
    let row: HashMap<String, Attribute> = serde_json::from_str(text).map_err(StoreError::Row)?;
    let attribute = |(name, Attribute(value)): (String, Attribute)| {
        let value = if name == TAGS { as_set(value) } else { value };
        (name, value)
    };
    Ok(row.into_iter().map(attribute).collect())
}

/// A list of words as a set.
fn as_set(value: AttributeValue) -> AttributeValue {
    let AttributeValue::L(list) = value else { return value };
    let word = |value: &AttributeValue| value.as_s().ok().cloned();
    match list.iter().map(word).collect() {
        Some(words) => AttributeValue::Ss(words),
        None => AttributeValue::L(list),
    }
}

/// The key of an item, and the text of the rest. A row repeats in its own attributes what it needs from the key.
pub(super) fn split(mut item: Item) -> Result<(Key, Text), StoreError> {
    let key = key_of(&mut item)?;
    Ok((key, serde_json::to_string(&Row(&item)).map_err(StoreError::Row)?))
}

/// The key of an item, which loses it.
pub(super) fn key_of(item: &mut Item) -> Result<Key, StoreError> {
    let mut part = |name: &str| match item.remove(name) {
        Some(AttributeValue::S(text)) => Ok(text),
        other => Err(StoreError::Row(de::Error::custom(format!("the key's attribute {name} is {other:?}")))),
    };
    Ok(Key { pk: part("pk")?, sk: part("sk")? })
}

/// An attribute that is read from JSON.
struct Attribute(AttributeValue);

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = AttributeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<AttributeValue, E> {
        Ok(AttributeValue::S(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<AttributeValue, E> {
        Ok(AttributeValue::S(text))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<AttributeValue, E> {
        Ok(AttributeValue::N(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<AttributeValue, E> {
        Ok(AttributeValue::N(number.to_string()))
    }

    fn visit_bool<E: de::Error>(self, is: bool) -> Result<AttributeValue, E> {
        Ok(AttributeValue::Bool(is))
    }

    fn visit_unit<E: de::Error>(self) -> Result<AttributeValue, E> {
        Ok(AttributeValue::Null(true))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<AttributeValue, A::Error> {
        let mut list = Vec::new();
        while let Some(Attribute(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(AttributeValue::L(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<AttributeValue, A::Error> {
        let mut map = HashMap::new();
        while let Some((name, Attribute(value))) = members.next_entry()? {
            map.insert(name, value);
        }
        Ok(AttributeValue::M(map))
    }
}

/// Attributes that are written as a JSON object.
struct Row<'a>(&'a Item);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            object.serialize_entry(name, &Writer(value))?;
        }
        object.end()
    }
}

/// One that is written as JSON.
struct Writer<'a>(&'a AttributeValue);

impl Serialize for Writer<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            AttributeValue::S(text) => to.serialize_str(text),
            AttributeValue::N(digits) => match (digits.parse::<u64>(), digits.parse::<i64>()) {
                (Ok(number), _) => to.serialize_u64(number),
                (_, Ok(number)) => to.serialize_i64(number),
                _ => Err(ser::Error::custom("a number that none of our rows has")),
            },
            AttributeValue::Bool(is) => to.serialize_bool(*is),
            AttributeValue::Null(_) => to.serialize_unit(),
            // A set has no order of its own.
            AttributeValue::Ss(words) => words.iter().collect::<BTreeSet<_>>().serialize(to),
            AttributeValue::L(list) => {
                let mut values = to.serialize_seq(Some(list.len()))?;
                for value in list {
                    values.serialize_element(&Self(value))?;
                }
                values.end()
            }
            AttributeValue::M(map) => Row(map).serialize(to),
            _ => Err(ser::Error::custom("an attribute of a type that none of our rows has")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_same_after_it_was_attributes() {
        let text = r#"{"text":"ü\"\\","empty":"","most":18446744073709551615,"least":-9223372036854775808,"yes":true,
            "nothing":null,"list":["a",{"b":[]}],"map":{"x":{"y":1}},"tags":["b","a"]}"#;
        let mut item = of_text(&text.to_owned()).unwrap();
        assert_eq!(item["tags"], AttributeValue::Ss(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(item["most"], AttributeValue::N(u64::MAX.to_string()));
        item.extend(of_key(Key { pk: "p".to_owned(), sk: "s".to_owned() }));
        let (key, back) = split(item).unwrap();
        assert_eq!((key.pk.as_str(), key.sk.as_str()), ("p", "s"));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let sorted = text.replace(r#"["b","a"]"#, r#"["a","b"]"#);
        assert_eq!(value(&back), value(&sorted));
    }

    #[test]
    fn what_none_of_our_rows_has_is_refused() {
        assert!(of_text(&"[]".to_owned()).is_err());
        assert!(of_text(&r#"{"half":0.5}"#.to_owned()).is_err());
        let with = |value| {
            let mut item = of_key(Key { pk: "p".to_owned(), sk: "s".to_owned() });
            item.insert("v".to_owned(), value);
            split(item)
        };
        assert!(with(AttributeValue::N("0.5".to_owned())).is_err());
        assert!(with(AttributeValue::Ns(vec!["1".to_owned()])).is_err());
        assert!(split(HashMap::new()).is_err());
    }
}
