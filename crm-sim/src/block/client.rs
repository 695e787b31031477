//! The application: writes, flushes, remembers per block what it was promised, and checks it wherever a primary appears.

use super::{BLOCK, EXTENTS, World};
use crm_block_engine::Event;
use std::collections::BTreeMap;

/// Values of a block in the order of issue; what of it must be there.
#[derive(Debug, Clone, Default)]
struct Past {
    issued: Vec<u64>,
    acked: usize,
    flushed: usize,
}

#[derive(Debug, Clone)]
enum Ask {
    Write { first: u64, count: u64, zero: bool, value: u64, fua: bool, at: Vec<usize> },
    Flush { promised: BTreeMap<u64, usize> },
}

/// What the application remembers.
#[derive(Debug, Clone, Default)]
pub struct Client {
    past: BTreeMap<u64, Past>,
    open: BTreeMap<u64, (usize, Ask)>,
    next: u64,
}

impl World {
    pub(super) fn client_turn(&mut self) -> Result<(), String> {
        let delay = 1 + self.dice(12);
        self.at(delay, super::Item::Client);
        let Some(node) = self.record.primary else { return Ok(()) };
        if self.nodes[node].engine.is_none() || self.client.open.len() > 12 || self.calm {
            return Ok(());
        }
        self.client.next += 1;
        let id = self.client.next;
        let ask = if self.dice(6) == 0 {
            let promised = self.client.past.iter().map(|(b, p)| (*b, p.acked)).collect();
            Ask::Flush { promised }
        } else {
            let extent = self.dice(EXTENTS);
            let first = extent * 1024 + self.dice(10);
            let (count, zero, fua) = (1 + self.dice(3), self.dice(12) == 0, self.dice(10) == 0);
            let at = self.issue(first, count, if zero { 0 } else { id });
            Ask::Write { first, count, zero, value: id, fua, at }
        };
        self.client.open.insert(id, (node, ask.clone()));
        self.submit(node, id, &ask)
    }

    /// Notes that a value is on its way; its places in the pasts of the blocks.
    fn issue(&mut self, first: u64, count: u64, value: u64) -> Vec<usize> {
        let new = || Past { issued: vec![0], ..Past::default() };
        (first..first + count)
            .map(|block| {
                let past = self.client.past.entry(block).or_insert_with(new);
                past.issued.push(value);
                past.issued.len() - 1
            })
            .collect()
    }

    fn submit(&mut self, node: usize, id: u64, ask: &Ask) -> Result<(), String> {
        let event = match *ask {
            Ask::Write { first, count, zero, value, fua, .. } => {
                let values = vec![value; crm_block_engine::bitmap::index(count)];
                Event::Write {
                    id,
                    offset: first * BLOCK,
                    len: count * BLOCK,
                    data: (!zero).then_some(values),
                    fua,
                }
            }
            Ask::Flush { .. } => Event::Flush { id },
        };
        self.event(node, event)
    }

    /// The data process died, the device lives on: the kernel asks again.
    pub(super) fn resubmit(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].engine.as_ref().is_none_or(|e| !e.is_primary()) {
            return Ok(());
        }
        let open: Vec<(u64, Ask)> = self
            .client
            .open
            .iter()
            .filter(|(_, (n, _))| *n == node)
            .map(|(id, (_, ask))| (*id, ask.clone()))
            .collect();
        for (id, mut ask) in open {
            if let Ask::Write { first, count, zero, value, at, .. } = &mut ask {
                // It may land on top of a write that was in flight beside it and is answered already.
                *at = self.issue(*first, *count, if *zero { 0 } else { *value });
            }
            self.client.open.insert(id, (node, ask.clone()));
            self.submit(node, id, &ask)?;
        }
        Ok(())
    }

    /// The machine died, its applications with it.
    pub(super) fn abandon(&mut self, node: usize) {
        self.client.open.retain(|_, (n, _)| *n != node);
    }

    /// Whether the application waits for something from the node.
    pub(super) fn waits_for(&self, node: usize) -> bool {
        self.client.open.values().any(|(n, _)| *n == node)
    }

    pub(super) fn completed(&mut self, id: u64, ok: bool) {
        let Some((_, ask)) = self.client.open.remove(&id) else { return };
        if !ok {
            return;
        }
        match ask {
            Ask::Write { first, fua, at, .. } => {
                self.outcome.acked += 1;
                for (block, at) in (first..).zip(at) {
                    let Some(past) = self.client.past.get_mut(&block) else { continue };
                    past.acked = past.acked.max(at);
                    if fua {
                        past.flushed = past.flushed.max(at);
                    }
                }
            }
            Ask::Flush { promised } => {
                for (block, at) in promised {
                    if let Some(past) = self.client.past.get_mut(&block) {
                        past.flushed = past.flushed.max(at);
                    }
                }
            }
        }
    }

    /// A cache was lost: only what was flushed is still promised.
    pub(super) fn promise_less(&mut self) {
        for past in self.client.past.values_mut() {
            past.acked = past.flushed;
        }
    }

    /// A primary appears: everything promised must be on its disk. What is seen there is promised from now on.
    pub(super) fn check_promises(&mut self, node: usize) -> Result<(), String> {
        let blocks: Vec<u64> = self.client.past.keys().copied().collect();
        for block in blocks {
            let value = self.value(node, block);
            let Some(past) = self.client.past.get_mut(&block) else { continue };
            let least = past.acked.max(past.flushed);
            let Some(at) = (least..past.issued.len()).rev().find(|i| past.issued[*i] == value)
            else {
                return Err(format!(
                    "node {node} became primary at {} ms without promised data: block {block} holds {value}, promised was {} of {:?}",
                    self.now, past.issued[least], past.issued
                ));
            };
            if value != 0 {
                past.acked = past.acked.max(at);
            }
        }
        Ok(())
    }
}
