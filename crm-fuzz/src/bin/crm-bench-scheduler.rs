//! Dev: one run of `crm simulate` beside Debian's `crm_simulate` on large clusters: processor time and memory; see `cargo xtask bench scheduler`.

use crm_fuzz::scale::{State, cib};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const HELP: &str = "crm-bench-scheduler EXECUTABLE JSON [--quick]";

/// A cluster to plan for.
#[derive(Debug, Clone, Copy)]
struct Size {
    nodes: usize,
    primitives: usize,
    state: State,
    /// How often they are asked: never where they need many minutes, once where they need one.
    theirs: usize,
}

const fn size(nodes: usize, primitives: usize, state: State, theirs: usize) -> Size {
    Size { nodes, primitives, state, theirs }
}

const SIZES: &[Size] = &[
    size(16, 1_000, State::Steady, 3),
    size(16, 1_000, State::Standby, 3),
    size(16, 1_000, State::Cold, 3),
    size(64, 1_000, State::Steady, 3),
    size(64, 1_000, State::Cold, 1),
    size(16, 5_000, State::Steady, 1),
    size(16, 5_000, State::Cold, 0),
];
const OURS: usize = 5;

/// What a run cost.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    /// Processor time, user and system.
    us: i64,
    /// Most memory at any time.
    kib: i64,
}

impl Cost {
    fn json(self) -> Value {
        json!({ "cpu_us": self.us, "peak_kib": self.kib })
    }
}

/// A line of output. A reader that went away is no error of ours.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Runs one program to its end and prints what it cost: in a process of its own, so that no other child counts.
fn one(words: &[String]) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or(HELP)?;
    let mut command = command(program);
    let status = command.args(args).status().map_err(|e| format!("{program}: {e}"))?;
    if !status.success() {
        return Err(format!("`{}`: {status}", words.join(" ")));
    }
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let us = |t: TimeVal| t.tv_sec() * 1_000_000 + t.tv_usec();
    say(&format!("{} {}", us(used.user_time()) + us(used.system_time()), used.max_rss()));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a development tool drives programs")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn cost(words: &[&str]) -> Result<Cost, String> {
    let own = std::env::current_exe().map_err(|e| format!("which program is this: {e}"))?;
    let mut command = command(own);
    command.arg("--one").args(words).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = command.output().map_err(|e| format!("{}: {e}", words.join(" ")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map_while(|w| w.parse::<i64>().ok());
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(us), Some(kib)) => Ok(Cost { us, kib }),
        _ => Err(format!("`{}` failed: {text}", words.join(" "))),
    }
}

/// The one in the middle, of each.
fn median(costs: &[Cost]) -> Option<Cost> {
    let middle = |f: fn(&Cost) -> i64| {
        let mut all: Vec<i64> = costs.iter().map(f).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    Some(Cost { us: middle(|c| c.us)?, kib: middle(|c| c.kib)? })
}

/// Files of one run.
struct Bench {
    dir: PathBuf,
    ours: String,
    theirs: Option<String>,
    quick: bool,
}

/// Both, on one cluster.
struct Row {
    size: Size,
    /// Bytes of the document.
    bytes: usize,
    ours: Cost,
    theirs: Option<Cost>,
}

impl Bench {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn measure(&self, size: Size) -> Result<Row, String> {
        let (input, ours, theirs) = (self.file("in.xml"), self.file("a.xml"), self.file("b.xml"));
        let text = cib(size.nodes, size.primitives, size.state);
        std::fs::write(&input, &text).map_err(|e| format!("{input}: {e}"))?;
        let rounds = if self.quick { 1 } else { OURS };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        // By turns, so that what else the machine does is shared.
        for round in 0..rounds {
            if let Some(program) = self.theirs.as_deref()
                && round < size.theirs
            {
                b.push(cost(&[program, "-x", &input, "-G", &theirs])?);
            }
            let words = ["simulate", "--style", "pacemaker", "--plan-only", "--cib", &input];
            let words = [&[self.ours.as_str()], &words[..], &["--graph", &ours]].concat();
            a.push(cost(&words)?);
        }
        if !b.is_empty() && steps(&ours)? != steps(&theirs)? {
            return Err(format!("{size:?}: the two plans have not the same number of actions"));
        }
        let ours = median(&a).ok_or("nothing was measured")?;
        Ok(Row { size, bytes: text.len(), ours, theirs: median(&b) })
    }
}

/// Actions in a graph: the same question must have had the same answer.
fn steps(path: &str) -> Result<usize, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    Ok(text.matches("<synapse ").count())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn ratio(a: i64, b: i64) -> f64 {
    a as f64 / b.max(1) as f64
}

fn times(them: Option<i64>, us: i64) -> String {
    them.map_or_else(|| "-".to_owned(), |them| format!("{:.1}", ratio(them, us)))
}

impl Row {
    fn line(&self) -> String {
        let Size { nodes, primitives, state, .. } = self.size;
        let mut out = format!("{nodes:>3} x {primitives:<5} {:<8}", state.word());
        let cell = |cost: Option<Cost>| match cost {
            Some(cost) => format!("{:>9.3} s {:>6} MB", ratio(cost.us, 1_000_000), cost.kib >> 10),
            None => format!("{:>11} {:>9}", "-", "-"),
        };
        let _infallible = write!(
            out,
            "{}{}{:>9}{:>9}",
            cell(self.theirs),
            cell(Some(self.ours)),
            times(self.theirs.map(|c| c.us), self.ours.us),
            times(self.theirs.map(|c| c.kib), self.ours.kib)
        );
        out
    }

    fn json(&self) -> Value {
        json!({
            "nodes": self.size.nodes, "resources": self.size.primitives,
            "state": self.size.state.word(), "document_bytes": self.bytes,
            "crm": self.ours.json(), "crm_simulate": self.theirs.map(Cost::json),
        })
    }
}

/// A promise, what came out, and whether it is kept.
struct Promise {
    words: &'static str,
    /// What was measured, and the limit.
    value: f64,
    limit: f64,
    /// The limit is the most, not the least.
    most: bool,
}

impl Promise {
    fn kept(&self) -> bool {
        if self.most { self.value <= self.limit } else { self.value >= self.limit }
    }

    fn line(&self) -> String {
        let Self { words, value, limit, most } = self;
        let word = if self.kept() { "kept" } else { "MISSED" };
        let bound = if *most { "most" } else { "least" };
        format!("{word:<7} {words}: {value:.2} (at {bound} {limit})")
    }
}

fn promises(rows: &[Row]) -> Vec<Promise> {
    let find = |nodes: usize, primitives: usize, state: State| {
        let same = |r: &&Row| {
            r.size.nodes == nodes && r.size.primitives == primitives && r.size.state == state
        };
        rows.iter().find(same)
    };
    let mut out = Vec::new();
    let mut add = |words, value: Option<f64>, limit, most| {
        out.extend(value.map(|value| Promise { words, value, limit, most }));
    };
    let steady = find(16, 1_000, State::Steady);
    let cold = find(64, 1_000, State::Cold);
    let wide = find(64, 1_000, State::Steady);
    let faster = |r: &Row| Some(ratio(r.theirs?.us, r.ours.us));
    let part = |r: &Row| Some(ratio(r.ours.kib, r.theirs?.kib));
    add("16 x 1000 steady: times faster", steady.and_then(faster), 10.0, false);
    add("64 x 1000 cold: times faster", cold.and_then(faster), 30.0, false);
    add("16 x 1000 steady: part of its memory", steady.and_then(part), 0.2, true);
    add("64 x 1000 cold: part of its memory", cold.and_then(part), 0.2, true);
    add("64 x 1000 steady: part of its memory", wide.and_then(part), 0.2, true);
    for (words, state) in [
        ("1,000 to 5,000 resources, steady: times linear", State::Steady),
        ("1,000 to 5,000 resources, cold: times linear", State::Cold),
    ] {
        let both = find(16, 1_000, state).zip(find(16, 5_000, state));
        add(words, both.map(|(a, b)| ratio(b.ours.us, a.ours.us) / 5.0), 1.3, true);
    }
    // All there is, the text of the document included.
    let entry = steady.zip(wide).map(|(a, b)| ratio((b.ours.kib - a.ours.kib) << 10, 48_000));
    add("bytes for each entry of the histories", entry, 2_000.0, true);
    out
}

fn run(words: &[String]) -> Result<bool, String> {
    let (Some(ours), Some(json)) = (words.first(), words.get(1)) else {
        return Err(HELP.to_owned());
    };
    let theirs = ["/usr/sbin/crm_simulate", "/usr/bin/crm_simulate"];
    let theirs = theirs.into_iter().find(|p| Path::new(p).is_file()).map(str::to_owned);
    if theirs.is_none() {
        say("SKIPPED crm_simulate: it is not installed (cargo xtask setup); ours alone:");
    }
    let dir = std::env::temp_dir().join(format!("crm-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let quick = words.iter().any(|w| w == "--quick");
    let bench = Bench { dir, ours: ours.clone(), theirs, quick };
    say("nodes x resources          crm_simulate                 crm   faster  smaller");
    let rows: Result<Vec<Row>, String> = SIZES
        .iter()
        .map(|size| {
            let row = bench.measure(*size)?;
            say(&row.line());
            Ok(row)
        })
        .collect();
    std::fs::remove_dir_all(&bench.dir).map_err(|e| format!("{}: {e}", bench.dir.display()))?;
    let rows = rows?;
    let promises = promises(&rows);
    for promise in &promises {
        say(&promise.line());
    }
    let figures = json!({
        "runs": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "promises": promises.iter().map(|p| json!({
            "promise": p.words, "value": p.value, "limit": p.limit, "kept": p.kept(),
        })).collect::<Vec<_>>(),
    });
    std::fs::write(json, format!("{figures:#}\n")).map_err(|e| format!("{json}: {e}"))?;
    Ok(promises.iter().all(Promise::kept))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "--one" => one(rest).map(|()| true),
        _ => run(&words),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}
