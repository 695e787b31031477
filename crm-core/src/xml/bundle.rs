//! Bundles: their containers, network, storage, and what runs inside of them.

use super::Reader;
use super::attributes::Sets;
use super::resources::Defaults;
use super::tree::Element;
use crate::cib::{
    Bundle, Container, Engine, Network, Nv, NvSet, PortMapping, Primitive, StorageMapping,
};

impl<'a> Reader<'a> {
    /// `None` with the problem noted when it cannot be one.
    pub(super) fn bundle(
        &mut self,
        element: Element<'a>,
        defaults: &Defaults<'a>,
    ) -> Option<Bundle> {
        let id = self.id(element)?;
        let meta = self.attributes(element, "meta_attributes", Sets::Plain);
        let defaults = defaults.inside(&meta);
        let mut container = None;
        let mut network = None;
        let mut storage = Vec::new();
        let mut child: Option<Primitive> = None;
        for part in element.children() {
            match part.name() {
                "network" => network = Some(self.network(part)),
                "storage" => {
                    for mapping in self.mappings(part, "storage", "storage-mapping") {
                        let id = mapping.word("id").to_owned();
                        storage.push(StorageMapping { id, attrs: attrs(mapping) });
                    }
                }
                "primitive" => child = self.primitive(part, &defaults),
                "meta_attributes" => {}
                name => match Engine::ALL.into_iter().find(|e| e.name() == name) {
                    Some(engine) => container = Some(Container { engine, attrs: attrs(part) }),
                    None => self.unknown(part, "bundle"),
                },
            }
        }
        for name in ["replicas", "promoted-max", "masters"] {
            let count = container.as_ref().and_then(|c: &Container| c.attrs.get(name));
            let count = count.map(str::to_owned);
            self.instances(element, name, count.as_deref());
        }
        let Some(container) = container else {
            self.wrong(element, format!("the bundle `{id}` says nothing of its containers"));
            return None;
        };
        let bundle = Bundle {
            id,
            description: element.attr("description").map(str::to_owned),
            container,
            network,
            storage,
            child,
            meta,
        };
        if bundle.child.is_some() && !bundle.reachable() {
            let text = format!(
                "what is in `{}` cannot be reached without `ip-range-start` or `control-port`",
                bundle.id
            );
            self.wrong(element, text);
        }
        Some(bundle)
    }

    fn network(&mut self, element: Element<'a>) -> Network {
        let ports = self.mappings(element, "network", "port-mapping");
        let port = |p: Element<'a>| PortMapping { id: p.word("id").to_owned(), attrs: attrs(p) };
        Network { attrs: attrs(element), ports: ports.into_iter().map(port).collect() }
    }

    fn mappings(
        &mut self,
        owner: Element<'a>,
        inside: &str,
        name: &'static str,
    ) -> Vec<Element<'a>> {
        for child in owner.children().filter(|c| c.name() != name) {
            self.unknown(child, inside);
        }
        owner.named(name).collect()
    }
}

/// The attributes of an element as pairs, but its id.
fn attrs(element: Element<'_>) -> NvSet {
    let pairs = element.attrs().filter(|(name, _)| *name != "id");
    let pair =
        |(name, value): (&str, &str)| Nv { name: name.to_owned(), value: Some(value.to_owned()) };
    NvSet { id: None, pairs: pairs.map(pair).collect() }
}
