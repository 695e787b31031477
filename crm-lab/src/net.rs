//! The wires: a bridge in the hub, one veth pair for each node and for the client. Cutting a wire takes its hub end down.

use crate::lab::{self, CLIENT_ADDRESS, Lab};
use crate::ns::{self, CLIENT, HUB};
use crate::{pid, shell};
use anyhow::{Result, bail};

const BRIDGE: &str = "br0";

fn ip(lab: &Lab, namespace: &str, words: &str) -> Result<String> {
    let mut command = ns::inside_network(lab, namespace, "ip")?;
    shell::run(command.args(words.split(' ')))
}

/// The hub's end of a wire.
fn wire(name: &str) -> String {
    format!("v-{name}")
}

/// Makes the bridge.
pub(crate) fn build_hub(lab: &Lab) -> Result<()> {
    ip(lab, HUB, "link set lo up")?;
    ip(lab, HUB, &format!("link add {BRIDGE} type bridge stp_state 0 forward_delay 0"))?;
    ip(lab, HUB, &format!("link set {BRIDGE} up"))?;
    Ok(())
}

/// Lays the wire to a namespace and gives its end the address. The wire of a dead predecessor goes first.
pub(crate) fn plug(lab: &Lab, name: &str) -> Result<()> {
    let (wire, target) = (wire(name), pid::get(lab, name)?);
    if ip(lab, HUB, &format!("link show {wire}")).is_ok() {
        ip(lab, HUB, &format!("link del {wire}"))?;
    }
    let address = if name == CLIENT { CLIENT_ADDRESS } else { lab::address(name)? };
    ip(lab, HUB, &format!("link add {wire} type veth peer name eth0 netns {target}"))?;
    ip(lab, HUB, &format!("link set {wire} master {BRIDGE}"))?;
    ip(lab, HUB, &format!("link set {wire} up"))?;
    ip(lab, name, "link set lo up")?;
    ip(lab, name, &format!("addr add {address}/24 brd + dev eth0"))?;
    // Last: the node's supervisor starts the daemons when it sees this.
    ip(lab, name, "link set eth0 up")?;
    Ok(())
}

/// Cuts the wire: nothing goes in or out from now on.
///
/// # Errors
/// When there is no such wire.
pub fn cut(lab: &Lab, name: &str) -> Result<()> {
    if lab.is_loopback() {
        bail!("a lab on loopback addresses has no links to cut");
    }
    ip(lab, HUB, &format!("link set {} down", wire(name)))?;
    Ok(())
}

/// Mends a cut wire.
///
/// # Errors
/// When there is no such wire.
pub fn mend(lab: &Lab, name: &str) -> Result<()> {
    if lab.is_loopback() {
        return Ok(());
    }
    ip(lab, HUB, &format!("link set {} up", wire(name)))?;
    Ok(())
}

/// Whether the wire is up on the hub's side.
pub fn is_plugged(lab: &Lab, name: &str) -> bool {
    lab.is_loopback() || is_wire_up(lab, name)
}

fn is_wire_up(lab: &Lab, name: &str) -> bool {
    ip(lab, HUB, &format!("link show {}", wire(name)))
        .is_ok_and(|text| text.split(['<', '>']).nth(1).is_some_and(has_up))
}

fn has_up(flags: &str) -> bool {
    flags.split(',').any(|flag| flag == "UP")
}
