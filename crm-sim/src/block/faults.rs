//! What goes wrong, and the authority that decides afterwards.

use super::{Item, World, pair, write};
use crm_block_engine::{Disk, Engine, Event};
use std::collections::BTreeSet;

const PROMOTE: u64 = 1 << 40;
const DEMOTE: u64 = 1 << 41;
const DOWN: u64 = 1 << 42;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let delay = 30 + self.dice(700);
        self.at(delay, Item::Fault);
        self.outcome.faults += 1;
        let count = crm_block_engine::bitmap::number(self.nodes.len());
        let node = crm_block_engine::bitmap::index(self.dice(count));
        let other =
            (node + 1 + crm_block_engine::bitmap::index(self.dice(count - 1))) % self.nodes.len();
        match self.dice(13) {
            0..3 => self.unlink(node, other, None),
            3 => {
                self.cut.insert(pair(node, other));
                self.unlink(node, other, None);
            }
            4 => self.cut.clear(),
            5..7 => self.kill(node),
            7..9 => self.power_loss(node),
            9 => {
                for node in 0..self.nodes.len() {
                    self.power_loss(node);
                }
            }
            10 => self.hand_over()?,
            11 => self.isolate(node),
            _ => self.clean_down(node)?,
        }
        if self.dice(3) == 0 {
            self.cut.clear();
        }
        for a in 0..self.nodes.len() {
            for b in 0..a {
                self.at(40, Item::Connect { a, b });
            }
        }
        Ok(())
    }

    /// The process dies: what it had begun may or may not happen; caches stay.
    pub(super) fn kill(&mut self, at: usize) {
        if self.nodes[at].engine.take().is_none() {
            return;
        }
        self.crash_disk(at);
        let delay = 5 + self.dice(150);
        self.at(delay, Item::Start { node: at });
    }

    fn crash_disk(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != at) {
            self.unlink(at, other, Some(at));
        }
        self.nodes[at].life += 1;
        for (first, values) in std::mem::take(&mut self.nodes[at].flying).into_values() {
            if self.dice(2) == 0 {
                self.put(at, first, &values);
            }
        }
        if let Some((_, pieces)) = std::mem::take(&mut self.nodes[at].meta).pop_front() {
            for piece in pieces {
                if self.dice(2) == 0 {
                    write(&mut self.nodes[at].file, &[piece]);
                }
            }
        }
    }

    /// The machine dies: of what was not flushed any part may be gone.
    pub(super) fn power_loss(&mut self, at: usize) {
        let running = self.nodes[at].engine.take().is_some();
        self.crash_disk(at);
        self.nodes[at].note = None;
        for block in std::mem::take(&mut self.nodes[at].unflushed) {
            if self.dice(2) == 0 {
                let node = &mut self.nodes[at];
                let old = node.durable.get(&block).copied().unwrap_or(0);
                node.cache.insert(block, old);
            }
        }
        let node = &mut self.nodes[at];
        node.durable = node.cache.clone();
        self.promise_less();
        self.abandon(at);
        self.deposed.remove(&at);
        if self.record.primary == Some(at) {
            self.record.primary = None;
        }
        if self.record.asked.is_some_and(|(n, _)| n == at) {
            self.record.asked = None;
        }
        if running || self.calm {
            let delay = 100 + self.dice(900);
            self.at(delay, Item::Start { node: at });
        }
    }

    /// A minority of one: no peer, no authority. Two are never cut off from an authority that neither of them is.
    fn isolate(&mut self, node: usize) {
        if self.nodes.len() < 3 || self.isolated.is_some() || self.record.asked.is_some() {
            return;
        }
        self.isolated = Some(node);
        for other in (0..self.nodes.len()).filter(|o| *o != node) {
            self.unlink(node, other, None);
        }
        let delay = 100 + self.dice(6000);
        self.at(delay, Item::Rejoin { node });
    }

    pub(super) fn rejoin(&mut self, node: usize) {
        if self.isolated != Some(node) {
            return;
        }
        if self.record.asked.is_some() {
            self.at(50, Item::Rejoin { node });
            return;
        }
        self.isolated = None;
        for other in (0..self.nodes.len()).filter(|o| *o != node) {
            let delay = self.dice(60);
            self.at(delay, Item::Connect { a: node, b: other });
        }
        // Its questions were kept.
        let (lost, back) = self.nodes[node].engine.as_ref().map_or((0, 0), Engine::questions);
        if self.record.primary == Some(node) {
            self.record.in_sync |= back;
            if lost != 0 {
                self.leave_behind(node, lost);
            }
        }
    }

    /// The record leaves these behind; the primary hears of it in a while.
    pub(super) fn leave_behind(&mut self, node: usize, peers: u32) {
        self.record.in_sync &= !peers;
        self.record.epoch += 1;
        let (epoch, life) = (self.record.epoch, self.nodes[node].life);
        let delay = 1 + self.dice(60);
        self.at(delay, Item::Dropped { node, life, peers, epoch });
    }

    /// The node finds out that it may not be primary any more.
    pub(super) fn depose(&mut self, node: usize) -> Result<(), String> {
        if !self.deposed.contains(&node) {
            return Ok(());
        }
        let delay = 200 + self.dice(800);
        self.at(delay, Item::Depose { node });
        self.event(node, Event::Demote { id: DEMOTE })
    }

    fn hand_over(&mut self) -> Result<(), String> {
        match self.record.primary {
            Some(node) if self.isolated == Some(node) => Ok(()),
            Some(node) if self.nodes[node].engine.is_some() && !self.waits_for(node) => {
                self.event(node, Event::Demote { id: DEMOTE })
            }
            _ => Ok(()),
        }
    }

    fn clean_down(&mut self, at: usize) -> Result<(), String> {
        let idle = self.nodes[at].engine.as_ref().is_some_and(|e| !e.is_primary());
        if !idle || self.record.asked.is_some() {
            return Ok(());
        }
        self.nodes[at].closing = true;
        self.event(at, Event::Down { id: DOWN })
    }

    pub(super) fn replied(&mut self, node: usize, id: u64, ok: bool) -> Result<(), String> {
        match id {
            DOWN if ok => {
                self.nodes[node].engine = None;
                self.crash_disk(node);
                self.nodes[node].note = None;
                let delay = 20 + self.dice(300);
                self.at(delay, Item::Start { node });
            }
            DOWN => self.nodes[node].closing = false,
            DEMOTE if ok => {
                let named = !self.deposed.remove(&node);
                self.record.primary = self.record.primary.filter(|n| *n != node || !named);
            }
            PROMOTE => {
                let Some((asked, _)) = self.record.asked.take_if(|(n, _)| *n == node) else {
                    return Ok(());
                };
                if ok {
                    self.record.primary = Some(asked);
                    self.outcome.promotions += 1;
                    self.check_promises(asked)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The process died while it was asked to become primary: what it says when it is back is the answer.
    pub(super) fn settle_question(&mut self, node: usize) -> Result<(), String> {
        if self.record.asked.is_some_and(|(asked, _)| asked == node) {
            let is = self.nodes[node].engine.as_ref().is_some_and(Engine::is_primary);
            self.replied(node, PROMOTE, is)?;
        }
        Ok(())
    }

    /// Promotes somebody when nobody is primary; a machine whose primary hangs is switched off first.
    pub(super) fn authority(&mut self) -> Result<(), String> {
        let delay = 40 + self.dice(40);
        self.at(delay, Item::Authority);
        if self.record.asked.is_some() {
            return Ok(());
        }
        if let Some(node) = self.record.primary.filter(|n| self.isolated == Some(*n)) {
            // The others have a majority: they do not wait for it, nor can they switch it off.
            if self.dice(6) == 0 {
                self.record.primary = None;
                self.deposed.insert(node);
                self.outcome.deposed += 1;
                let delay = self.dice(4000);
                self.at(delay, Item::Depose { node });
            }
            return Ok(());
        }
        if let Some(node) = self.record.primary {
            let alive = self.nodes[node].engine.is_some();
            if !alive && self.dice(4) == 0 {
                self.power_loss(node);
                self.at(500, Item::Start { node });
            }
            return Ok(());
        }
        // One that does not know yet whether it is the newest may be vouched for by the record; the engine refuses it while it can ask.
        let ready = |n: &Engine<super::Data>| n.view().disk >= Disk::Consistent;
        let candidates: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.record.in_sync >> n & 1 == 1 && !self.nodes[*n].closing)
            .filter(|n| self.isolated != Some(*n) && !self.deposed.contains(n))
            .filter(|n| self.nodes[*n].engine.as_ref().is_some_and(ready))
            .collect();
        let Some(&node) =
            candidates.get(crm_block_engine::bitmap::index(self.dice(4)) % candidates.len().max(1))
        else {
            return Ok(());
        };
        let away = |n: usize| self.isolated == Some(n);
        let gone = |n: &usize| {
            self.nodes[*n].engine.is_none() || self.record.in_sync >> n & 1 == 0 || away(*n)
        };
        let lost: BTreeSet<usize> =
            (0..self.nodes.len()).filter(|n| *n != node && gone(n)).collect();
        let dead: Vec<usize> =
            lost.iter().copied().filter(|n| self.nodes[*n].engine.is_none() && !away(*n)).collect();
        for n in dead {
            // Known dead means switched off, not about to come back as it was.
            self.power_loss(n);
            self.at(300, Item::Start { node: n });
        }
        let mask = lost.iter().fold(0, |m, n| m | 1 << n);
        // As the controller does: the record leaves them behind first, whatever comes of the promotion.
        self.record.in_sync &= !mask;
        self.record.asked = Some((node, mask));
        self.event(node, Event::Promote { id: PROMOTE, lost: mask })
    }

    /// No more faults: everything comes back.
    pub(super) fn heal(&mut self) {
        self.calm = true;
        self.cut.clear();
        if let Some(node) = self.isolated {
            self.rejoin(node);
        }
        for node in 0..self.nodes.len() {
            self.at(10, Item::Start { node });
            for other in 0..node {
                for again in 1..200 {
                    self.at(again * 60, Item::Connect { a: node, b: other });
                }
            }
        }
    }
}
