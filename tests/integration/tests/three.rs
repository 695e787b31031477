//! Three nodes: the majority goes on, the minority stops what it runs.

use anyhow::{Result, bail, ensure};
use crm_integration::{Stage, Wish};
use crm_lab::{cluster, net, node, script, wait};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn the_majority_goes_on_and_the_minority_stops_what_it_runs() -> Result<()> {
    let wish = Wish { nodes: 3, debian_agents: false };
    let Some(stage) = Stage::playing("three", wish)? else { return Ok(()) };
    cluster::configure(&stage.lab, "property no-quorum-policy=stop\ncommit\nquit\n")?;
    let lonely = stage.active()?;
    let cut = stage.scene(&format!("cut {lonely} off"), || {
        net::cut(&stage.lab, &lonely)?;
        wait::until(&format!("{lonely} to stop all it runs"), SOON, || {
            let held = node::exec(&stage.lab, &lonely, &["ip", "-o", "addr", "show"])?;
            let mounts = node::exec(&stage.lab, &lonely, &["cat", "/proc/mounts"])?;
            if held.contains(crm_lab::VIP) || mounts.contains(" /srv ext4 ") {
                bail!("it still holds the address or the file system");
            }
            Ok(Some(String::new()))
        })
    })?;
    ensure!(cut.active != lonely, "the service is still on {lonely}");
    let picture = node::status(&stage.lab, &lonely)?;
    ensure!(!picture.quorate, "{lonely} believes to have a quorum");
    stage.scene(&format!("mend {lonely}"), || script::heal(&stage.lab, &lonely))?;
    let victim = stage.active()?;
    let killed = stage.scene(&format!("kill {victim}"), || {
        node::kill(&stage.lab, &victim).map(|()| String::new())
    })?;
    ensure!(killed.active != victim, "{victim} is dead and has the service");
    stage.scene(&format!("heal {victim}"), || script::heal(&stage.lab, &victim))?;
    stage.finish().map(|_| ())
}
