//! The configuration text on a live cluster: the seed, bad input, outdated commits.

use anyhow::{Context, Result, bail, ensure};
use crm_core::store::Outcome;
use crm_integration::{Stage, TWO, say};
use crm_lab::{cluster, node};
use crm_proto::local::{Reply, Request};

fn formed(name: &str) -> Result<Option<Stage>> {
    let Some(stage) = Stage::bare(name, TWO)? else { return Ok(None) };
    cluster::form(&stage.lab, &stage.lab.nodes()?)?;
    cluster::create_volume(&stage.lab)?;
    Ok(Some(stage))
}

fn version(stage: &Stage) -> Result<u64> {
    match node::call(&stage.lab, "alpha", &Request::Cib)? {
        Reply::Cib { version, .. } => Ok(version),
        other => bail!("crmd answered {other:?}"),
    }
}

/// Words of a text without line ends and continuation marks.
fn words(text: &str) -> String {
    text.split_whitespace().filter(|w| *w != "\\").collect::<Vec<_>>().join(" ")
}

/// What the issue wants named about the seed: reversed colocation, fencing off, no-quorum-policy=ignore, no monitor, automatic failback.
const FINDINGS: [&str; 5] =
    ["ms-drbd-nfs-with-ha", "stonith-enabled", "no-quorum-policy", "fs_nfs", "loc"];

#[test]
fn the_seed_commits_and_is_shown_as_crmsh_would() -> Result<()> {
    let Some(stage) = formed("seed")? else { return Ok(()) };
    let before = version(&stage)?;
    cluster::configure(&stage.lab, &format!("{}show\ncommit\nquit\n", cluster::SEED))?;
    ensure!(version(&stage)? == before + 1, "one commit is one version");
    let shown = node::exec(&stage.lab, "delta", &["crm", "configure", "show"])?;
    let all = words(&shown);
    let seed = cluster::SEED.lines().filter(|l| !l.starts_with('#') && !l.starts_with("property"));
    for line in seed.map(words) {
        // crmsh shows the kind of an order by its name.
        let line =
            if line.starts_with("order ") { line.replace(" inf: ", " Mandatory: ") } else { line };
        ensure!(all.contains(&line), "`{line}` is missing in:\n{shown}");
    }
    for line in [
        "property cib-bootstrap-options: \\\n",
        "\tstonith-enabled=false",
        "node 1: alpha",
        ": delta",
    ] {
        ensure!(shown.contains(line), "`{line}` is missing in:\n{shown}");
    }
    let lint = node::exec(&stage.lab, "alpha", &["sh", "-c", "crm lint 2>&1 || true"])?;
    say(&lint);
    for finding in FINDINGS {
        ensure!(lint.contains(finding), "lint does not name {finding}:\n{lint}");
    }
    Ok(())
}

/// Text, and what the refusal must say.
const BAD: [(&str, &[&str]); 8] = [
    ("primitive x ocf:heartbeat:Dumy\n", &["1:", "^", "Dummy"]),
    ("primitive x ocf:heartbeat:IPaddr2 params ipp=1.2.3.4\n", &["1:", "^", "ip"]),
    ("primitive x Dummy\nlocation l x 100: alfa\n", &["2:", "^", "alpha"]),
    ("primitive dum Dummy\ncolocation c inf: dum dmu\n", &["2:", "^", "dum"]),
    ("primitive x Dummy\nlocation l x 1oo: alpha\n", &["2:", "^", "1oo"]),
    (
        "primitive x Dummy\nprimitive y Dummy\ncolocation a inf: x y\ncolocation b inf: y x\n",
        &["4:", "^"],
    ),
    ("primitive x Dummy params state=\"/run/x\n", &["1:", "^", "quote"]),
    ("primitve x Dummy\n", &["1:", "^", "primitive"]),
];

#[test]
fn bad_input_is_refused_with_its_place_and_nothing_is_committed() -> Result<()> {
    let Some(stage) = formed("bad")? else { return Ok(()) };
    let before = version(&stage)?;
    for (text, wanted) in BAD {
        let Err(error) = cluster::configure(&stage.lab, &format!("{text}commit\n")) else {
            bail!("accepted: {text}");
        };
        let said = format!("{error:#}");
        for part in wanted {
            ensure!(said.contains(part), "`{part}` is missing in the refusal of\n{text}\n{said}");
        }
        ensure!(version(&stage)? == before, "something was committed by:\n{text}");
    }
    Ok(())
}

/// One session begins, another one commits, the first one commits.
const BOTH: &str = "{ echo 'primitive mine Dummy'; crm configure primitive theirs Dummy >&2; echo commit; } \
    | crm configure 2>&1; echo code $?";

#[test]
fn a_commit_made_from_an_outdated_version_is_refused_with_the_difference() -> Result<()> {
    let Some(stage) = formed("outdated")? else { return Ok(()) };
    cluster::configure(&stage.lab, "primitive first Dummy\ncommit\nquit\n")?;
    let said = node::exec(&stage.lab, "alpha", &["sh", "-c", BOTH])?;
    say(&said);
    ensure!(!said.contains("code 0"), "the outdated commit went through:\n{said}");
    ensure!(said.contains("theirs"), "the difference is not shown:\n{said}");
    let shown = node::exec(&stage.lab, "alpha", &["crm", "configure", "show"])?;
    ensure!(shown.contains("primitive theirs") && !shown.contains("primitive mine"), "{shown}");
    let Reply::Cib { version, cib } = node::call(&stage.lab, "alpha", &Request::Cib)? else {
        bail!("crmd does not tell its CIB");
    };
    let stale = Request::Commit { base: version - 1, cib, message: "test".to_owned() };
    let answer = node::call(&stage.lab, "alpha", &stale).context("commit from an old version")?;
    let refused = matches!(answer, Reply::Outcome(Outcome::Outdated { .. }));
    ensure!(refused, "crmd answered {answer:?}");
    Ok(())
}
