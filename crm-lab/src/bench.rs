//! `crm demo --bench FILE`: what the owner asks numbers of. Gaps as the NFS client sees them, the volume against the bare backing file,
//! commits of the configuration.

use crate::client;
use crate::down::down;
use crate::lab::{DEVICE, Lab, VOLUME};
use crate::up::{Plan, bare, up};
use crate::{cluster, node, script, ui};
use anyhow::{Context, Result, bail, ensure};
use crm_core::store::Edit;
use crm_proto::block::Request;
use crm_proto::local;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Drains and kills measured; the median counts.
const ROUNDS: usize = 5;
/// Time of one fio job.
const FIO_SECONDS: &str = "--runtime=5";
/// Time of the commits.
const COMMIT_TIME: Duration = Duration::from_secs(5);
/// Size of the bare file, as the volume's.
const BARE_SIZE: &str = "256M";
/// A file beside the volume's backing file: same file system, same disk.
const BARE: &str = "/var/lib/crm/disks/bare";

fn median(sorted: &mut [u64]) -> u64 {
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

fn gaps(lab: &Lab) -> Result<Value> {
    client::start(lab, "/srv")?;
    script::calm(lab)?;
    let (mut drains, mut kills) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let from = cluster::wait_for_service(lab)?;
        drains.push(script::scene(lab, "drain", || script::drain(lab, &from))?.tally.gap.ms);
        script::scene(lab, "return", || script::bring_back(lab, &from))?;
        let victim = cluster::wait_for_service(lab)?;
        let kill = || node::kill(lab, &victim).map(|()| String::new());
        kills.push(script::scene(lab, "kill", kill)?.tally.gap.ms);
        script::scene(lab, "heal", || script::heal(lab, &victim))?;
        ui::say(&format!("  gaps so far, ms: drain {drains:?}, kill {kills:?}"));
    }
    let end = client::ask(lab, client::Question::Finish)?;
    ensure!(end.is_clean(), "the client saw trouble: {end:?}");
    Ok(json!({
        "drain_gap_ms": { "median": median(&mut drains), "all_sorted": drains },
        "kill_gap_ms": { "median": median(&mut kills), "all_sorted": kills },
        "records_acknowledged": end.acknowledged,
        "records_found": end.found,
    }))
}

fn fio(lab: &Lab, on: &str, target: &str, job: &[&str]) -> Result<Value> {
    let file = format!("--filename={target}");
    let size = format!("--size={BARE_SIZE}");
    let mut words =
        vec!["fio", "--name=job", "--output-format=json", "--ioengine=libaio", "--direct=1"];
    words.extend([file.as_str(), size.as_str(), FIO_SECONDS, "--time_based", "--randrepeat=1"]);
    words.extend_from_slice(job);
    let text = node::exec(lab, on, &words)?;
    // fio may say something before its document.
    let start = text.find('{').context("find fio's figures")?;
    let all: Value = serde_json::from_str(text.get(start..).unwrap_or_default())
        .context("read fio's figures")?;
    let write = all.pointer("/jobs/0/write").context("find fio's figures for writes")?;
    Ok(json!({
        "iops": write.get("iops"),
        "kib_per_s": write.get("bw"),
        "p50_us": write.pointer("/clat_ns/percentile/50.000000").and_then(Value::as_u64).map(|ns| ns / 1000),
        "p99_us": write.pointer("/clat_ns/percentile/99.000000").and_then(Value::as_u64).map(|ns| ns / 1000),
    }))
}

/// The volume as a raw device on the first node, its replica connected, against a file beside its backing file.
fn disks(lab: &Lab) -> Result<Value> {
    let nodes = lab.nodes()?;
    let first = nodes.first().context("a lab has nodes")?;
    let volume = || VOLUME.to_owned();
    for name in &nodes {
        node::order_block(lab, name, &Request::Up { volume: volume() })?;
    }
    cluster::wait_for_sync(lab, &nodes)?;
    node::order_block(lab, first, &Request::Promote { volume: volume(), lost: Vec::new() })?;
    let jobs: [(&str, &[&str]); 3] = [
        ("randwrite_4k_qd1", &["--rw=randwrite", "--bs=4k", "--iodepth=1"]),
        ("randwrite_4k_qd32", &["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
        ("seqwrite_128k_qd8", &["--rw=write", "--bs=128k", "--iodepth=8"]),
    ];
    // Blocks that exist: the first write into a hole would measure the file system instead.
    let fill = format!("of={BARE}");
    node::exec(lab, first, &["dd", "if=/dev/zero", &fill, "bs=1M", "count=256", "conv=fsync"])?;
    node::exec(
        lab,
        first,
        &["dd", "if=/dev/zero", &format!("of={DEVICE}"), "bs=1M", "count=256", "conv=fsync"],
    )?;
    let mut figures = serde_json::Map::new();
    for (name, job) in jobs {
        let (on_volume, on_file) = (fio(lab, first, DEVICE, job)?, fio(lab, first, BARE, job)?);
        ui::say(&format!("  {name}: volume {on_volume}, bare file {on_file}"));
        figures.insert(name.to_owned(), json!({ "volume": on_volume, "bare_file": on_file }));
    }
    node::order_block(lab, first, &Request::Demote { volume: volume() })?;
    Ok(Value::Object(figures))
}

fn commits(lab: &Lab) -> Result<Value> {
    let nodes = lab.nodes()?;
    let first = nodes.first().context("a lab has nodes")?;
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < COMMIT_TIME {
        let edit = Edit::NodeAttr {
            node: first.clone(),
            name: "bench".to_owned(),
            value: Some(count.to_string()),
        };
        let request = local::Request::Edit { edits: vec![edit], message: "bench".to_owned() };
        match node::call(lab, first, &request)? {
            local::Reply::Outcome(crm_core::store::Outcome::Done { .. }) => count += 1,
            other => bail!("commit {count}: {other:?}"),
        }
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    ui::say(&format!("  {rate:.0} commits/s, one client, each on both nodes' disks"));
    Ok(json!(rate))
}

/// Measures all and writes the figures.
pub(crate) fn run(lab: &Lab, plan: &Plan, out: &Path) -> Result<()> {
    bare(lab, plan)?;
    cluster::form(lab, &lab.nodes()?)?;
    cluster::create_volume(lab)?;
    let disks = disks(lab)?;
    let commits = commits(lab)?;
    down(lab)?;
    up(lab, plan)?;
    let gaps = gaps(lab)?;
    down(lab)?;
    let all = json!({ "gaps": gaps, "disks": disks, "cib_commits_per_s": commits });
    let text = serde_json::to_string_pretty(&all).context("write the figures")?;
    fs::write(out, text).with_context(|| format!("write {}", out.display()))
}
