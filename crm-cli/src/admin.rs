//! Operators' commands about the cluster itself: remove a node, leave, new certificates; disarm and arm.

use crate::Shell;
use crate::args::DisarmArgs;
use crate::fail::{Fail, version_of};
use crate::status::clock;
use crm_core::store::Disarmed;
use crm_proto::local::Request;
use jiff::tz::TimeZone;

/// `crm cluster remove`.
pub(crate) fn remove(shell: &mut Shell<'_>, node: String, force: bool) -> Result<(), Fail> {
    let words = shell.daemon.done(&Request::RemoveNode { node, force })?;
    shell.ui.say(&words);
    Ok(())
}

/// `crm cluster leave`.
pub(crate) fn leave(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let words = shell.daemon.done(&Request::Leave)?;
    shell.ui.say(&words);
    Ok(())
}

/// `crm cluster rotate`.
pub(crate) fn rotate(shell: &mut Shell<'_>, node: Option<String>) -> Result<(), Fail> {
    let nodes: Vec<String> = match node {
        Some(node) => vec![node],
        None => shell.daemon.status()?.state.members.keys().cloned().collect(),
    };
    let mut failed = Vec::new();
    for node in nodes {
        match shell.daemon.done(&Request::Renew { node: node.clone() }) {
            Ok(words) => shell.ui.say(&words),
            Err(fail) => {
                shell.ui.say(&fail.words());
                failed.push(node);
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let remedy = format!("crm cluster rotate {}", failed.join(", then "));
    Err(Fail::with_remedy(format!("not renewed: {}", failed.join(", ")), remedy))
}

/// `crm disarm`.
pub(crate) fn disarm(shell: &mut Shell<'_>, args: DisarmArgs) -> Result<(), Fail> {
    let reason = args.reason.unwrap_or_default();
    let request = Request::Disarm { for_ms: Some(args.span), reason };
    version_of(shell.daemon.change(&request)?)?;
    let status = shell.daemon.status()?;
    match status.state.disarmed_at(status.now_ms) {
        Some(disarmed) => shell.ui.say(&words(disarmed, &shell.zone)),
        None => shell.ui.say("the time is over already"),
    }
    Ok(())
}

/// `crm arm`.
pub(crate) fn arm(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let was = {
        let status = shell.daemon.status()?;
        status.state.disarmed_at(status.now_ms).is_some()
    };
    version_of(shell.daemon.change(&Request::Disarm { for_ms: None, reason: String::new() })?)?;
    shell.ui.say(if was { "armed: the cluster acts again" } else { "it was armed already" });
    Ok(())
}

/// What it means that the cluster is disarmed.
pub(crate) fn words(disarmed: &Disarmed, zone: &TimeZone) -> String {
    let why = match disarmed.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    format!(
        "DISARMED until {} by {}{why}: nothing is fenced, recovered or started; `crm arm` ends it",
        clock::sortable(disarmed.until_ms, zone),
        disarmed.by
    )
}

#[cfg(test)]
mod tests {
    use crate::test_bed::Bed;

    #[test]
    fn a_disarmed_cluster_says_so_at_the_top_of_its_status_until_it_is_armed() {
        let mut bed = Bed::new();
        let (code, _, words) = bed.crm(&["disarm", "--for", "1h", "--reason", "new switch"]);
        assert_eq!(code, 0, "{words}");
        let told = "DISARMED until 2018-12-10 14:40:23 by root@alpha (new switch)";
        assert!(words.contains(told), "{words}");
        let (_, status, _) = bed.crm(&["status"]);
        assert!(status.contains(told), "{status}");
        let (_, json, _) = bed.crm(&["status", "-o", "json"]);
        assert!(json.contains("DISARMED until"), "{json}");
        assert_eq!(bed.crm(&["arm"]).0, 0);
        let (_, status, _) = bed.crm(&["status"]);
        assert!(!status.contains("DISARMED"), "{status}");
    }

    #[test]
    fn a_span_is_needed_and_has_to_be_one() {
        let mut bed = Bed::new();
        let (code, _, words) = bed.crm(&["disarm"]);
        assert!(code == 1 && words.contains("--for"), "{words}");
        let (code, _, words) = bed.crm(&["disarm", "--for", "soon"]);
        assert!(code == 1 && words.contains("no duration"), "{words}");
        assert!(bed.state.disarmed.is_none());
    }
}
