//! Placing follows chains of colocations as deep as they are: a long one needs more stack than a thread usually has.

use super::Input;
use crate::cib::{Constraint, Resource};

/// Links of a chain that fit into the stack of any thread.
const SHALLOW: usize = 400;
/// Stack that one link takes, at most.
const PER_LINK: usize = 4 * 1024;
const STACK_MIN: usize = 16 << 20;
const STACK_MAX: usize = 1 << 30;

/// Links that a chain of colocations could have at most.
fn links(input: &Input<'_>) -> usize {
    let constraints = input.cib.constraints.iter().map(|constraint| match constraint {
        Constraint::Colocation(c) if c.sets.is_empty() => 1,
        Constraint::Colocation(c) => c.sets.iter().map(|s| s.members.len()).sum(),
        Constraint::Order(_) | Constraint::Location(_) => 0,
    });
    let groups = input.cib.resources.iter().map(|resource| {
        let mut inner = Vec::new();
        match resource {
            Resource::Primitive(_) | Resource::Bundle(_) => {}
            Resource::Group(_) | Resource::Clone(_) => resource.collect_primitives(&mut inner),
        }
        inner.len()
    });
    constraints.sum::<usize>() + groups.sum::<usize>()
}

/// Makes it where there is room for the longest chain there could be.
pub(super) fn roomy<T: Send>(input: &Input<'_>, make: impl Fn() -> T + Sync) -> T {
    let links = links(input);
    if links <= SHALLOW {
        return make();
    }
    let stack = (STACK_MIN + links.saturating_mul(PER_LINK)).min(STACK_MAX);
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(stack);
        match builder.spawn_scoped(scope, &make) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread is to be had: as far as this one's stack reaches.
            Err(_) => make(),
        }
    })
}
