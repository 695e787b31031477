//! The active node loses power, again and again.

use anyhow::{Result, ensure};
use crm_integration::{Stage, TWO, say};
use crm_lab::{node, script};

/// The issue wants this many in a row.
const KILLS: usize = 20;

#[test]
fn no_acknowledged_record_is_lost_in_twenty_kills_in_a_row() -> Result<()> {
    let Some(stage) = Stage::playing("kill", TWO)? else { return Ok(()) };
    let mut gaps = Vec::new();
    for round in 1..=KILLS {
        let victim = stage.active()?;
        let killed = stage.scene(&format!("{round} kill {victim}"), || {
            node::kill(&stage.lab, &victim).map(|()| String::new())
        })?;
        ensure!(killed.active != victim, "{victim} is dead and has the service");
        gaps.push(killed.tally.gap.ms);
        let healed =
            stage.scene(&format!("{round} heal {victim}"), || script::heal(&stage.lab, &victim))?;
        ensure!(healed.active == killed.active, "it failed back");
    }
    gaps.sort_unstable();
    say(&format!("kill: {KILLS} in a row, gaps in ms, sorted: {gaps:?}"));
    stage.finish().map(|_| ())
}
