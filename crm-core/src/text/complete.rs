//! What a wanted CIB leaves out, filled in from the CIB that it replaces: numbers of nodes, first generations of volumes.

use super::session::free_port;
use crate::cib::{Cib, NvSet};

/// Fills in what `wanted` leaves open: node numbers and nodes that it does not mention (a node leaves by `crm cluster remove`, not by a
/// text), and ports and first generations of volumes. `fresh` gives random numbers for new volumes.
pub fn complete(base: &Cib, wanted: &mut Cib, fresh: &mut dyn FnMut() -> u64) {
    for node in &base.nodes {
        match wanted.node_mut(&node.name) {
            Some(found) => {
                if found.id == 0 {
                    found.id = node.id;
                }
            }
            None => wanted.nodes.push(crate::cib::Node {
                id: node.id,
                name: node.name.clone(),
                attributes: NvSet::default(),
                utilization: NvSet::default(),
            }),
        }
    }
    for index in 0..wanted.volumes.len() {
        let old = base.volume(&wanted.volumes[index].name);
        if wanted.volumes[index].day0 == 0 {
            let mut day0 = old.map_or(0, |v| v.day0);
            while day0 == 0 {
                day0 = fresh();
            }
            wanted.volumes[index].day0 = day0;
        }
        if wanted.volumes[index].port == 0 {
            let port = old.map(|v| v.port).or_else(|| free_port(wanted));
            wanted.volumes[index].port = port.unwrap_or_default();
        }
    }
}
