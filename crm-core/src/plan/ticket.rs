//! Tickets: what needs one runs only while the cluster has it.

use super::model::{Model, RscIx};
use crate::cib::{LossPolicy, Role, RscTicket, Score};
use crate::status::Ticket;

/// Applies what the tickets' states mean. A ticket nobody has heard of is not granted.
pub(super) fn apply(model: &mut Model<'_>) {
    let (cib, status) = (model.cib, model.status);
    for constraint in &cib.rsc_tickets {
        let unknown = Ticket { granted: false, standby: false };
        let ticket = status.tickets.get(&constraint.ticket).copied().unwrap_or(unknown);
        let Some(r) = model.constrained(&constraint.rsc) else { continue };
        if constraint.role == Some(Role::Promoted) && (!ticket.granted || ticket.standby) {
            model.rscs[r].no_promotion = true;
        }
        for leaf in model.leaves(r) {
            leaf_ticket(model, leaf, constraint, ticket);
        }
    }
}

fn leaf_ticket(model: &mut Model<'_>, r: RscIx, c: &RscTicket, ticket: Ticket) {
    let promoted_only = c.role == Some(Role::Promoted);
    let active = !model.rscs[r].active.is_empty();
    if !ticket.granted && active {
        match c.loss {
            LossPolicy::Stop => forbid(model, r, c),
            LossPolicy::Demote if promoted_only => {}
            LossPolicy::Demote => forbid(model, r, c),
            LossPolicy::Fence => fence(model, r, c),
            LossPolicy::Freeze if in_role(model, r, c) => {
                model.rscs[r].frozen = true;
                // Pacemaker does not count on it any more: what comes after its start waits.
                model.rscs[r].now.held |= model.props.exact;
            }
            LossPolicy::Freeze => {}
        }
    } else if (!ticket.granted || ticket.standby) && (!promoted_only || c.loss == LossPolicy::Stop)
    {
        forbid(model, r, c);
    }
}

/// Is it now in the role that needs the ticket?
fn in_role(model: &Model<'_>, r: RscIx, c: &RscTicket) -> bool {
    let active = &model.rscs[r].active;
    match c.role {
        None | Some(Role::Started | Role::Stopped) => true,
        Some(role) => active.iter().any(|a| a.role == role),
    }
}

fn forbid(model: &mut Model<'_>, r: RscIx, c: &RscTicket) {
    model.rscs[r].scores.fill(Score::NEG_INF);
    let text = format!("needs ticket {}, which is not here ({})", c.ticket, c.id);
    model.because(r, None, "ticket", text).scored(Score::NEG_INF).by(&c.ticket);
}

fn fence(model: &mut Model<'_>, r: RscIx, c: &RscTicket) {
    if !in_role(model, r, c) {
        return;
    }
    forbid(model, r, c);
    for seen in model.rscs[r].active.clone() {
        if model.props.exact && model.props.fencing {
            let why = || "deadman ticket was lost".to_owned();
            model.nodes[seen.node].fence.get_or_insert_with(why);
        }
    }
}
