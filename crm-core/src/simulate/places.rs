//! Where a node's record of a resource stands, so that none is looked for among thousands.

use crate::lrm::NodeRecord;
use std::collections::BTreeMap;

/// Places of one node's records.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By id, the first one.
    exact: BTreeMap<String, usize>,
    /// By id without the number of an instance, the first one.
    alike: BTreeMap<String, usize>,
}

impl Places {
    /// Of all that is recorded.
    pub(super) fn of(node: &NodeRecord) -> Self {
        let mut out = Self::default();
        for (at, record) in node.resources.iter().enumerate() {
            out.add(&record.id, at);
        }
        out
    }

    /// Notes what stands in a place.
    pub(super) fn add(&mut self, id: &str, at: usize) {
        self.exact.entry(id.to_owned()).or_insert(at);
        if let Some((base, _)) = id.rsplit_once(':') {
            self.alike.entry(base.to_owned()).or_insert(at);
        }
    }

    /// The record of a resource; older ones name instances that are alike by number.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.exact.get(id).or_else(|| self.alike.get(id)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn an_exact_name_goes_before_an_instance_and_the_first_before_others() {
        let mut places = Places::default();
        for (at, id) in ["b:0", "b:1", "b", "b", "c:0"].into_iter().enumerate() {
            places.add(id, at);
        }
        assert_eq!(places.find("b"), Some(2));
        assert_eq!(places.find("b:1"), Some(1));
        assert_eq!(places.find("c"), Some(4));
        assert_eq!(places.find("d"), None);
    }
}
