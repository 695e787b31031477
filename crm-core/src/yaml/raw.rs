//! The shape of the YAML document as it is read, with places.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::marker::PhantomData;

/// A map that keeps its order.
#[derive(Debug)]
pub(super) struct Ordered<V>(pub(super) Vec<(String, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Ordered<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Pairs<V> {
            type Value = Ordered<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<V>, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry::<String, V>()? {
                    out.push(entry);
                }
                Ok(Ordered(out))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Ordered<V>, E> {
                Ok(Ordered::default())
            }
        }

        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

/// Names and values as written.
pub(super) type Pairs = Ordered<Spanned<Option<String>>>;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    #[serde(default)]
    pub(super) cluster: Pairs,
    #[serde(default)]
    pub(super) defaults: Defaults,
    #[serde(default)]
    pub(super) nodes: Ordered<Option<Pairs>>,
    #[serde(default)]
    pub(super) capacities: Ordered<Spanned<Pairs>>,
    #[serde(default)]
    pub(super) volumes: Ordered<Spanned<Volume>>,
    #[serde(default)]
    pub(super) resources: Vec<Spanned<Resource>>,
    #[serde(default)]
    pub(super) constraints: Vec<Spanned<Constraint>>,
    #[serde(default)]
    pub(super) fencing: Vec<Spanned<Fencing>>,
}

/// Levels of the nodes named by at most one of the first three.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fencing {
    pub(super) node: Option<Spanned<String>>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) attribute: Option<Ordered<String>>,
    pub(super) levels: Vec<Vec<Spanned<String>>>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    #[serde(default)]
    pub(super) resources: Pairs,
    #[serde(default)]
    pub(super) operations: Pairs,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Volume {
    pub(super) size: Spanned<String>,
    pub(super) device: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) day0: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) assume_clean: bool,
    pub(super) replicas: Ordered<String>,
}

/// A primitive, group, clone, promotable clone or bundle: exactly one of the first five.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) primitive: Option<Spanned<String>>,
    pub(super) group: Option<Spanned<String>>,
    pub(super) clone: Option<Spanned<String>>,
    pub(super) promotable: Option<Spanned<String>>,
    pub(super) bundle: Option<Spanned<String>>,
    pub(super) agent: Option<Spanned<String>>,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) params: Pairs,
    #[serde(default)]
    pub(super) meta: Pairs,
    #[serde(default)]
    pub(super) utilization: Pairs,
    #[serde(default)]
    pub(super) operations: Vec<Spanned<Ordered<Option<Pairs>>>>,
    pub(super) layout: Option<Spanned<Vec<String>>>,
    pub(super) members: Option<Vec<Spanned<Self>>>,
    pub(super) of: Option<Box<Spanned<Self>>>,
    pub(super) docker: Option<Pairs>,
    pub(super) podman: Option<Pairs>,
    pub(super) rkt: Option<Pairs>,
    pub(super) network: Option<Pairs>,
    #[serde(default)]
    pub(super) ports: Ordered<Pairs>,
    #[serde(default)]
    pub(super) storage: Ordered<Pairs>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Constraint {
    Location(Location),
    Colocate(Colocate),
    Order(Order),
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Location {
    pub(super) id: Option<Spanned<String>>,
    pub(super) resource: Option<Spanned<String>>,
    pub(super) pattern: Option<Spanned<String>>,
    pub(super) node: Spanned<String>,
    pub(super) score: Spanned<String>,
    pub(super) role: Option<Spanned<String>>,
    pub(super) discovery: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Colocate {
    pub(super) id: Option<Spanned<String>>,
    pub(super) follower: Option<Spanned<String>>,
    pub(super) leader: Option<Spanned<String>>,
    pub(super) score: Option<Spanned<String>>,
    pub(super) node_attribute: Option<String>,
    #[serde(default)]
    pub(super) sets: Vec<Spanned<Set>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    pub(super) id: Option<Spanned<String>>,
    pub(super) kind: Option<Spanned<String>>,
    pub(super) first: Option<Spanned<String>>,
    pub(super) then: Option<Spanned<String>>,
    pub(super) symmetrical: Option<bool>,
    #[serde(default)]
    pub(super) sets: Vec<Spanned<Set>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Set {
    pub(super) resources: Vec<Spanned<String>>,
    pub(super) sequential: Option<bool>,
    pub(super) require_all: Option<bool>,
    pub(super) role: Option<Spanned<String>>,
    pub(super) action: Option<Spanned<String>>,
}
