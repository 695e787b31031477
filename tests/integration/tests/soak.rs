//! Clusters with a fence agent, again and again: everything that can be lost is lost, the service comes back where it may, and never runs twice.
//!
//! The service holds a lock that all nodes share: whoever finds it held while starting has proof that two sides were active, and says so.
//! `CRM_SOAK_ROUNDS` says how often (once, when it does not); `cargo xtask soak` runs twenty rounds of the release build.

use anyhow::{Context, Result, bail, ensure};
use crm_integration::{Stage, Wish, say};
use crm_lab::{cluster, net, node, power, wait};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long whatever comes of a fault may take. Some wait for a device's second try.
const LIMIT: Duration = Duration::from_secs(90);

struct Soak {
    stage: Stage,
    /// Those that run services.
    nodes: Vec<String>,
    witness: Option<String>,
}

/// What a round does to the cluster, and what must come of it.
type Act = fn(&Soak) -> Result<()>;

/// Whether somebody holds a lock of this file, by the kernel's list: whoever tried to take it to find out would be in the way of a service
/// that starts at that moment, and be taken for a second side.
fn is_locked(file: &Path) -> Result<bool> {
    let inode = format!(":{}", fs::metadata(file)?.ino());
    let locks = fs::read_to_string("/proc/locks").context("list the locks")?;
    Ok(locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Whoever waits for it has an arrow in the place of the kind.
        words.get(1) == Some(&"FLOCK") && words.get(5).is_some_and(|file| file.ends_with(&inode))
    }))
}

#[test]
fn who_looks_at_the_lock_is_not_in_the_way_of_whoever_takes_it() -> Result<()> {
    let file = std::env::temp_dir().join(format!("crm-lock-{}", std::process::id()));
    fs::write(&file, "")?;
    let looking = AtomicBool::new(true);
    let seen = std::thread::scope(|scope| -> Result<usize> {
        let looks = scope.spawn(|| -> Result<usize> {
            let mut held = 0;
            while looking.load(Ordering::Relaxed) {
                held += usize::from(is_locked(&file)?);
            }
            Ok(held)
        });
        let take = |_| {
            Flock::lock(File::open(&file)?, FlockArg::LockExclusiveNonblock)
                .map(drop)
                .map_err(|(_, error)| std::io::Error::from(error))
        };
        let taken = (0..20_000).try_for_each(take);
        looking.store(false, Ordering::Relaxed);
        let held = looks.join().ok().context("the looks panicked")??;
        taken.context("somebody was in the way")?;
        Ok(held)
    });
    let left = is_locked(&file);
    fs::remove_file(&file)?;
    ensure!(seen? > 0, "it was never seen locked");
    ensure!(!left?);
    Ok(())
}

impl Soak {
    /// A cluster of so many nodes, with a witness perhaps, and the service running.
    fn new(name: &str, nodes: usize, witness: bool) -> Result<Option<Self>> {
        let members = nodes + usize::from(witness);
        let Some(stage) = Stage::bare(name, Wish { nodes: members, debian_agents: false })? else {
            return Ok(None);
        };
        let mut names = stage.lab.nodes()?;
        let witness = if witness { names.pop() } else { None };
        cluster::form(&stage.lab, &names)?;
        let soak = Self { stage, nodes: names, witness };
        if let Some(witness) = &soak.witness {
            cluster::join(&soak.stage.lab, &soak.nodes[0], witness, &["--witness"])?;
        }
        soak.configure()?;
        soak.whole()?;
        Ok(Some(soak))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.stage.lab.dir().join(name)
    }

    fn configure(&self) -> Result<()> {
        let program = self.file("hold-the-lock");
        let dir = self.stage.lab.dir().display();
        let script = format!(
            "#!/bin/sh\nme=$(sed -n 's/^name: //p' /etc/crm/node.yaml)\nexec 9>>{dir}/lock\n\
            flock -n 9 || {{ echo \"$me found it held by $(cat {dir}/holder)\" >>{dir}/violations; exit 1; }}\n\
            echo $me >{dir}/holder\nexec sleep infinity\n"
        );
        fs::write(&program, script).context("write the service")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(self.file("lock"), "")?;
        let text = format!(
            "primitive power stonith:fence_lab params pcmk_host_list=\"{}\" op monitor interval=30s\n\
            primitive svc ocf:heartbeat:anything params binfile={} op monitor interval=1s timeout=20s\n\
            property stonith-enabled=true no-quorum-policy=stop dc-deadtime=4s\n\
            rsc_defaults resource-stickiness=100 migration-threshold=0\ncommit\nquit\n",
            self.nodes.join(" "),
            program.display()
        );
        cluster::configure(&self.stage.lab, &text)?;
        Ok(())
    }

    /// Where the service runs, by its lock.
    fn holder(&self) -> Result<Option<String>> {
        if is_locked(&self.file("lock"))? {
            return Ok(Some(fs::read_to_string(self.file("holder"))?.trim().to_owned()));
        }
        Ok(None)
    }

    fn single(&self) -> Result<()> {
        match fs::read_to_string(self.file("violations")) {
            Ok(told) => bail!("TWO SIDES WERE ACTIVE: {told}"),
            Err(_) => Ok(()),
        }
    }

    /// Waits until the service runs on one of these.
    fn serves(&self, among: &[String]) -> Result<String> {
        wait::until("the service", LIMIT, || {
            self.single()?;
            let holder = self.holder()?;
            Ok(holder.filter(|node| among.contains(node) && node::is_on(&self.stage.lab, node)))
        })
    }

    fn nobody_serves(&self) -> Result<()> {
        wait::until("the service to be stopped", LIMIT, || {
            Ok(self.holder()?.is_none().then_some(()))
        })
    }

    fn others(&self, than: &str) -> Vec<String> {
        self.nodes.iter().filter(|n| *n != than).cloned().collect()
    }

    fn members(&self) -> Vec<String> {
        self.nodes.iter().chain(&self.witness).cloned().collect()
    }

    fn leader(&self) -> Result<String> {
        let asked = self.holder()?.context("nobody serves")?;
        node::status(&self.stage.lab, &asked)?.leader.context("nobody leads")
    }

    fn break_the_strip(&self) -> Result<()> {
        fs::write(power::broken(&self.stage.lab), "").context("break the strip")
    }

    fn mend_the_strip(&self) -> Result<()> {
        match fs::remove_file(power::broken(&self.stage.lab)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What the strip was told so far.
    fn shots(&self) -> Result<usize> {
        let log = fs::read_to_string(power::log(&self.stage.lab))?;
        let shot = |line: &&str| line.starts_with("reboot ") || line.starts_with("off ");
        Ok(log.lines().filter(shot).count())
    }

    fn shot_since(&self, before: usize) -> Result<()> {
        wait::until("somebody to be fenced", LIMIT, || Ok((self.shots()? > before).then_some(())))
    }

    fn kill(&self, name: &str) -> Result<()> {
        node::kill(&self.stage.lab, name)
    }

    /// Switched on, and its wire mended: a device may be about to switch it on, or off.
    fn mend(&self, name: &str) -> Result<()> {
        wait::until("its wire", LIMIT, || {
            self.switch_on(name)?;
            // Or it was switched on by somebody who did not come as far as its wire.
            let lab = &self.stage.lab;
            net::mend(lab, name).or_else(|_| node::start(lab, name)).map(Some)
        })
    }

    /// All is mended and switched on, all are members again, the service runs, once.
    fn whole(&self) -> Result<String> {
        let lab = &self.stage.lab;
        self.mend_the_strip()?;
        for name in self.members() {
            self.mend(&name)?;
        }
        self.members_again()?;
        let holder = self.serves(&self.nodes)?;
        cluster::wait_idle(lab, &holder)?;
        self.single()?;
        Ok(holder)
    }

    fn switch_on(&self, name: &str) -> Result<()> {
        if node::is_on(&self.stage.lab, name) { Ok(()) } else { node::start(&self.stage.lab, name) }
    }

    fn members_again(&self) -> Result<()> {
        let lab = &self.stage.lab;
        wait::until("all to be members", LIMIT, || {
            // Whoever had to be fenced again and again is switched off, not rebooted: a person switches it on.
            for name in self.members() {
                self.switch_on(&name)?;
            }
            for name in self.members() {
                let picture = node::status(lab, &name)?;
                let online = |n: &String| picture.nodes.get(n).is_some_and(|l| l.alive && l.online);
                let witnesses = picture.witnesses.values().all(|alive| *alive);
                let all = self.nodes.iter().all(online) && witnesses;
                ensure!(
                    all && picture.quorate && picture.leader.is_some(),
                    "{name}: {:?}, leader {:?}, {:?}, {:?}, {:?}",
                    picture.mode,
                    picture.leader,
                    picture.nodes,
                    picture.witnesses,
                    picture.waiting
                );
                ensure!(picture.leader != self.witness, "the witness leads");
            }
            Ok(Some(()))
        })
    }

    fn rounds(&self, acts: &[(&str, Act)]) -> Result<()> {
        let rounds = std::env::var("CRM_SOAK_ROUNDS").map_or(Ok(1), |text| text.parse::<u32>())?;
        for round in 1..=rounds {
            for (name, act) in acts {
                let begun = Instant::now();
                let what = || format!("round {round}: {name}");
                act(self).with_context(what)?;
                let seconds = begun.elapsed().as_secs_f64();
                self.whole().with_context(|| format!("after {}", what()))?;
                say(&format!(
                    "{}: {} ({seconds:.1} s, whole again after {:.1} s)",
                    self.stage.lab.dir().display(),
                    what(),
                    begun.elapsed().as_secs_f64()
                ));
            }
        }
        Ok(())
    }
}

fn power_of_the_holder(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    soak.kill(&holder)?;
    soak.serves(&soak.others(&holder)).map(drop)
}

fn power_of_another(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    // The leader, if it is not the holder itself.
    let leader = soak.leader()?;
    let first = soak.others(&holder).into_iter().next().context("a second node")?;
    let before = soak.shots()?;
    soak.kill(if leader == holder { &first } else { &leader })?;
    soak.shot_since(before)?;
    ensure!(soak.serves(&soak.nodes)? == holder, "the service moved");
    Ok(())
}

fn power_of_the_witness(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    let witness = soak.witness.clone().context("a witness")?;
    soak.kill(&witness)?;
    wait::until("the witness to be missed", LIMIT, || {
        Ok(node::status(&soak.stage.lab, &holder)?
            .witnesses
            .get(&witness)
            .filter(|a| !**a)
            .map(drop))
    })?;
    ensure!(soak.holder()? == Some(holder), "the service moved");
    Ok(())
}

fn daemon_of(soak: &Soak, name: &str) -> Result<()> {
    node::signal(&soak.stage.lab, name, "daemon", "KILL")
}

fn daemon_of_the_holder(soak: &Soak) -> Result<()> {
    daemon_of(soak, &soak.serves(&soak.nodes)?)
}

fn daemon_of_the_leader(soak: &Soak) -> Result<()> {
    daemon_of(soak, &soak.leader()?)
}

fn daemon_of_the_witness(soak: &Soak) -> Result<()> {
    daemon_of(soak, soak.witness.as_ref().context("a witness")?)
}

fn cut_of_the_holder(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    net::cut(&soak.stage.lab, &holder)?;
    soak.serves(&soak.others(&holder)).map(drop)
}

/// Of two both shoot: whoever is faster goes on.
fn both_fence(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    let before = soak.shots()?;
    net::cut(&soak.stage.lab, &holder)?;
    soak.shot_since(before)
}

fn cut_of_another(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    let other = soak.others(&holder).pop().context("a second node")?;
    net::cut(&soak.stage.lab, &other)?;
    wait::until("it to be missed", LIMIT, || {
        let picture = node::status(&soak.stage.lab, &holder)?;
        Ok(picture.nodes.get(&other).filter(|line| !line.alive).map(drop))
    })?;
    ensure!(soak.serves(&soak.nodes)? == holder, "the service moved");
    Ok(())
}

fn cut_of_the_witness(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    let witness = soak.witness.clone().context("a witness")?;
    net::cut(&soak.stage.lab, &witness)?;
    wait::until("the witness to be missed", LIMIT, || {
        Ok(node::status(&soak.stage.lab, &holder)?
            .witnesses
            .get(&witness)
            .filter(|a| !**a)
            .map(drop))
    })?;
    ensure!(soak.holder()? == Some(holder), "the service moved");
    Ok(())
}

/// A minority with the service in it.
fn cut_of_two(soak: &Soak) -> Result<()> {
    let holder = soak.serves(&soak.nodes)?;
    let mut others = soak.others(&holder);
    let second = others.pop().context("a second node")?;
    for name in [&holder, &second] {
        net::cut(&soak.stage.lab, name)?;
    }
    soak.serves(&others).map(drop)
}

fn cut_of_all(soak: &Soak) -> Result<()> {
    soak.serves(&soak.nodes)?;
    for name in soak.members() {
        net::cut(&soak.stage.lab, &name)?;
    }
    soak.nobody_serves()
}

fn cold_start_of_all(soak: &Soak) -> Result<()> {
    soak.break_the_strip()?;
    for name in soak.members() {
        soak.kill(&name)?;
    }
    soak.mend_the_strip()?;
    for name in soak.members() {
        node::start(&soak.stage.lab, &name)?;
    }
    soak.serves(&soak.nodes).map(drop)
}

/// A majority starts, and has the device fence whoever is missing.
fn cold_start_of_a_majority(soak: &Soak) -> Result<()> {
    let absent = soak.serves(&soak.nodes)?;
    soak.break_the_strip()?;
    for name in soak.members() {
        soak.kill(&name)?;
    }
    soak.mend_the_strip()?;
    for name in soak.members().iter().filter(|name| **name != absent) {
        node::start(&soak.stage.lab, name)?;
    }
    soak.serves(&soak.nodes).map(drop)
}

/// One of two starts: it waits, until a person vouches for the other one.
fn cold_start_of_one(soak: &Soak) -> Result<()> {
    let first = soak.serves(&soak.nodes)?;
    let other = soak.others(&first).pop().context("a second node")?;
    soak.break_the_strip()?;
    for name in [&other, &first] {
        soak.kill(name)?;
    }
    node::start(&soak.stage.lab, &first)?;
    waits(soak, &first, &other)?;
    ensure!(soak.holder()?.is_none(), "it serves without knowing of the other one");
    let lab = &soak.stage.lab;
    node::exec(lab, &first, &["crm", "node", "fence", &other, "--confirm"])?;
    node::exec(lab, &first, &["crm", "cluster", "force"])?;
    soak.serves(&[first]).map(drop)
}

/// A node that has just started waits for the other one.
fn waits(soak: &Soak, name: &str, other: &str) -> Result<()> {
    wait::until("it to wait", LIMIT, || {
        let picture = node::status(&soak.stage.lab, name)?;
        let waiting = picture.waiting.unwrap_or_default();
        ensure!(waiting.contains(&format!("waiting for {other}")), "{waiting}");
        // The other one counts as dead, too: nothing is left to come.
        Ok(picture.nodes.get(other).filter(|line| !line.alive).map(drop))
    })
}

/// Of two the one that was left behind starts first: it must not serve before it has heard of the other one.
fn cold_start_of_a_stale_one(soak: &Soak) -> Result<()> {
    let (lab, newer) = (&soak.stage.lab, soak.serves(&soak.nodes)?);
    let stale = soak.others(&newer).pop().context("a second node")?;
    soak.break_the_strip()?;
    soak.kill(&stale)?;
    wait::until("its death to be taken from a person", LIMIT, || {
        node::exec(lab, &newer, &["crm", "node", "fence", &stale, "--confirm"]).map(Some)
    })?;
    wait::until("the takeover", LIMIT, || {
        let told = node::exec(lab, &newer, &["crm", "cluster", "status"])?;
        Ok(told.contains("the only voter since generation").then_some(()))
    })?;
    ensure!(soak.holder()?.as_ref() == Some(&newer), "the service moved");
    soak.kill(&newer)?;
    node::start(lab, &stale)?;
    waits(soak, &stale, &newer)?;
    ensure!(soak.holder()?.is_none(), "a stale node serves");
    soak.mend_the_strip()?;
    node::start(lab, &newer)?;
    soak.serves(&soak.nodes).map(drop)
}

/// A node that missed a change starts with the rest of a majority: it serves with that change.
fn cold_start_of_a_stale_majority(soak: &Soak) -> Result<()> {
    let (lab, newer) = (&soak.stage.lab, soak.serves(&soak.nodes)?);
    let stale = soak.others(&newer).pop().context("a second node")?;
    soak.break_the_strip()?;
    soak.kill(&stale)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mark = format!("cluster-recheck-interval={}s", 600 + now.as_millis() % 1_000_000);
    let change = format!("property {mark}\ncommit\nquit\n");
    wait::until("a change without it", LIMIT, || {
        node::exec_with_input(lab, &newer, &["crm", "configure"], &change).map(Some)
    })?;
    soak.kill(&newer)?;
    node::start(lab, &stale)?;
    soak.mend_the_strip()?;
    soak.serves(&soak.nodes)?;
    let shown = node::exec(lab, &stale, &["crm", "configure", "show"])?;
    ensure!(shown.contains(&mark), "a change is lost: {shown}");
    Ok(())
}

#[test]
fn two_nodes_with_a_fence_device() -> Result<()> {
    let Some(soak) = Soak::new("soak-two", 2, false)? else { return Ok(()) };
    soak.rounds(&[
        ("power of the holder", power_of_the_holder),
        ("power of the other one", power_of_another),
        ("crmd of the holder", daemon_of_the_holder),
        ("crmd of the leader", daemon_of_the_leader),
        ("both fence each other", both_fence),
        ("cold start of both", cold_start_of_all),
        ("cold start of one", cold_start_of_one),
        ("cold start of the stale one first", cold_start_of_a_stale_one),
    ])
}

/// What all of this relies on: without fencing both sides run the service, and that is seen.
#[test]
fn a_service_on_two_sides_is_noticed() -> Result<()> {
    let Some(soak) = Soak::new("soak-unfenced", 2, false)? else { return Ok(()) };
    let text = "property stonith-enabled=false no-quorum-policy=ignore\ncommit\nquit\n";
    cluster::configure(&soak.stage.lab, text)?;
    let holder = soak.serves(&soak.nodes)?;
    net::cut(&soak.stage.lab, &holder)?;
    wait::until("the second side to find the lock held", LIMIT, || {
        Ok(soak.single().err().filter(|e| e.to_string().contains("TWO SIDES")).map(drop))
    })
}

/// The build that pretends to be the next version; `None`, said loudly, when there is none.
fn next_version() -> Option<PathBuf> {
    let named = std::env::var_os("CRM_NEXT").map(PathBuf::from);
    let beside = || Some(crm_integration::executable().ok()?.with_file_name("crm-next"));
    let found = named.or_else(beside).filter(|path| path.exists());
    if found.is_none() {
        say(
            "SKIPPED: no build of the next version: cargo build -p crm --features pretend-next, kept as crm-next, or CRM_NEXT",
        );
    }
    found
}

impl Soak {
    /// Drains a node, gives it this build, and takes it back.
    fn upgrade(&self, name: &str, to: Option<&Path>) -> Result<()> {
        let lab = &self.stage.lab;
        node::exec(lab, name, &["crm", "node", "standby", name, "--wait"])?;
        node::install(lab, name, to)?;
        for daemon in ["daemon", "blockd"] {
            node::signal(lab, name, daemon, "TERM")?;
        }
        wait::until("the daemon to be another one", LIMIT, || {
            let pids = node::daemon_pids(lab, name, "daemon")?;
            let link = format!("/proc/{}/exe", pids.last().context("no daemon")?);
            let runs = node::exec(lab, name, &["readlink", &link])?;
            Ok((runs.trim() == lab.executable_of(name).to_string_lossy()).then_some(()))
        })?;
        self.members_again()?;
        node::exec(lab, name, &["crm", "node", "online", name, "--wait"])?;
        self.whole().map(drop)
    }

    /// `crm cluster status` of a node says this.
    fn told(&self, on: &str, words: &str) -> Result<()> {
        wait::until(words, LIMIT, || {
            let told = node::exec(&self.stage.lab, on, &["crm", "cluster", "status"])?;
            ensure!(told.contains(words), "{told}");
            Ok(Some(()))
        })
    }
}

/// A rolling upgrade: node by node, with the old `crm` and the old members talking to the new ones all the while.
#[test]
fn nodes_of_two_versions_work_together_and_there_is_no_way_back() -> Result<()> {
    let Some(next) = next_version() else { return Ok(()) };
    let Some(soak) = Soak::new("upgrade", 3, false)? else { return Ok(()) };
    let (lab, first) = (&soak.stage.lab, soak.nodes[0].clone());
    let change = |seconds: u32| {
        let text = format!("property cluster-recheck-interval={seconds}s\ncommit\nquit\n");
        cluster::configure(lab, &text)
    };
    for (done, name) in (1..).zip(&soak.nodes) {
        soak.upgrade(name, Some(&next))?;
        // Whichever build leads, and whichever was asked.
        change(600 + done)?;
        power_of_the_holder(&soak)?;
        soak.whole()?;
        if done < 3 {
            soak.told(&first, "feature level 1 (")?;
        }
    }
    soak.told(&first, "feature level 2\n")?;
    // What only the new version understands is in the log now. The old one says so and stays out; the others go on.
    let back = soak.nodes[1].clone();
    node::exec(lab, &back, &["crm", "node", "standby", &back, "--wait"])?;
    node::install(lab, &back, None)?;
    daemon_of(&soak, &back)?;
    wait::until("the old version to refuse", LIMIT, || {
        let log = fs::read_to_string(lab.node_dir(&back).join("log/crmd.log"))?;
        Ok(log.contains("the cluster has feature level 2, and this crm knows 1 only").then_some(()))
    })?;
    soak.serves(&soak.others(&back))?;
    node::install(lab, &back, Some(&next))?;
    soak.members_again()?;
    node::exec(lab, &back, &["crm", "node", "online", &back, "--wait"])?;
    soak.whole().map(drop)
}

#[test]
fn two_nodes_and_a_witness() -> Result<()> {
    let Some(soak) = Soak::new("soak-witness", 2, true)? else { return Ok(()) };
    soak.rounds(&[
        ("power of the holder", power_of_the_holder),
        ("power of the other one", power_of_another),
        ("power of the witness", power_of_the_witness),
        ("crmd of the leader", daemon_of_the_leader),
        ("crmd of the witness", daemon_of_the_witness),
        ("the holder is cut off", cut_of_the_holder),
        ("the other one is cut off", cut_of_another),
        ("the witness is cut off", cut_of_the_witness),
        ("all are cut off", cut_of_all),
        ("cold start of all", cold_start_of_all),
        ("cold start of one and the witness", cold_start_of_a_majority),
        ("cold start of the stale one and the witness", cold_start_of_a_stale_majority),
    ])
}

#[test]
fn three_nodes() -> Result<()> {
    let Some(soak) = Soak::new("soak-three", 3, false)? else { return Ok(()) };
    soak.rounds(&[
        ("power of the holder", power_of_the_holder),
        ("power of another", power_of_another),
        ("crmd of the holder", daemon_of_the_holder),
        ("crmd of the leader", daemon_of_the_leader),
        ("the holder is cut off", cut_of_the_holder),
        ("another is cut off", cut_of_another),
        ("all are cut off", cut_of_all),
        ("cold start of all", cold_start_of_all),
        ("cold start of two", cold_start_of_a_majority),
        ("cold start with a stale one", cold_start_of_a_stale_majority),
    ])
}

/// The options of service quorum in whole daemons (ADR-0019): of three that are lost one after another the one that breaks ties serves alone
/// and can be configured; another one that is left stops.
#[test]
fn of_three_the_last_one_standing_serves_where_it_breaks_the_tie() -> Result<()> {
    let Some(soak) = Soak::new("standing", 3, false)? else { return Ok(()) };
    let (lab, nodes) = (&soak.stage.lab, &soak.nodes);
    let refused = "property auto_tie_breaker=1 last_man_standing=1\ncommit\nquit\n";
    let refused = cluster::configure(lab, refused).err().map(|e| format!("{e:#}"));
    let words = "`auto_tie_breaker=1` does not go with `last_man_standing=1`";
    ensure!(refused.as_ref().is_some_and(|said| said.contains(words)), "{refused:?}");
    cluster::configure(
        lab,
        "property wait_for_all=1 last_man_standing=1 last_man_standing_window=2s auto_tie_breaker=1 stonith-action=off\n\
        commit\nquit\n",
    )?;
    let (first, second, third) = (&nodes[0], &nodes[1], &nodes[2]);
    for (last, lost) in [(first, [third, second]), (second, [third, first])] {
        for name in nodes {
            soak.told(name, "votes: quorate: 3 of 3 votes are here")?;
        }
        soak.kill(lost[0])?;
        soak.told(last, &format!("not counted now: {}", lost[0]))?;
        // Only when raft's membership has followed may one of the two that are left go on alone.
        soak.told(last, &format!("no voter of the configuration now: {}", lost[0]))?;
        let left: Vec<String> = soak.others(lost[0]);
        soak.serves(&left)?;
        soak.kill(lost[1])?;
        if last == first {
            soak.serves(std::slice::from_ref(last))?;
            wait::until("it to be configured", LIMIT, || {
                let change = "property cluster-recheck-interval=777s\ncommit\nquit\n";
                node::exec_with_input(lab, last, &["crm", "configure"], change).map(Some)
            })?;
        } else {
            // It waits for all again, as votequorum has it, and fences nobody.
            let words = "votes: NOT QUORATE: wait_for_all: 1 of 2 votes is here";
            soak.told(last, words)?;
            soak.nobody_serves()?;
            let log = fs::read_to_string(power::log(lab))?;
            let shot = log.lines().rfind(|line| line.starts_with("off ")).unwrap_or_default();
            ensure!(shot.contains(third.as_str()), "{last} fences without the votes: {log}");
        }
        soak.whole()?;
    }
    Ok(())
}

#[test]
fn five_nodes() -> Result<()> {
    let Some(soak) = Soak::new("soak-five", 5, false)? else { return Ok(()) };
    soak.rounds(&[
        ("power of the holder", power_of_the_holder),
        ("power of another", power_of_another),
        ("crmd of the leader", daemon_of_the_leader),
        ("two are cut off", cut_of_two),
        ("all are cut off", cut_of_all),
        ("cold start of all", cold_start_of_all),
        ("cold start of four", cold_start_of_a_majority),
    ])
}
