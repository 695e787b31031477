//! An ordered tree of scalars, maps and lists: what is written as YAML.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A part of a YAML document.
pub(super) enum Tree {
    /// A value; `None` is null.
    Scalar(Option<String>),
    /// Names and values, in order.
    Map(Vec<(String, Self)>),
    /// Values.
    List(Vec<Self>),
}

impl Tree {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Scalar(Some(text.into()))
    }
}

/// A map that is being filled; empty parts are left out.
#[derive(Default)]
pub(super) struct Map(Vec<(String, Tree)>);

impl Map {
    pub(super) fn put(&mut self, name: &str, value: Tree) {
        let empty = match &value {
            Tree::Scalar(_) => false,
            Tree::Map(map) => map.is_empty(),
            Tree::List(list) => list.is_empty(),
        };
        if !empty {
            self.0.push((name.to_owned(), value));
        }
    }

    pub(super) fn text(&mut self, name: &str, value: impl Into<String>) {
        self.put(name, Tree::text(value));
    }

    pub(super) fn option(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(super) fn tree(self) -> Tree {
        Tree::Map(self.0)
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(None) => serializer.serialize_none(),
            Self::Scalar(Some(text)) => scalar(text, serializer),
            Self::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (name, value) in pairs {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
        }
    }
}

/// Numbers and booleans that read back as the same text need no quotes.
fn scalar<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    match (text, text.parse::<i64>()) {
        ("true", _) => serializer.serialize_bool(true),
        ("false", _) => serializer.serialize_bool(false),
        (_, Ok(number)) if number.to_string() == text => serializer.serialize_i64(number),
        _ => serializer.serialize_str(text),
    }
}
