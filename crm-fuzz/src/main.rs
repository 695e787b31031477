//! Dev: `crm-fuzz --seeds A..B`: this engine against Debian's `crm_simulate` on random clusters; see `cargo xtask fuzz-scheduler`.

use crm_core::plan::Habits;
use crm_fuzz::engine::{Failure, Levels, Oracle, ours, ours_of};
use crm_fuzz::generate::{FEATURES, Mask, ON_REQUEST, cluster};
use crm_fuzz::known::{self, Search};
use crm_fuzz::minimise::minimise;
use crm_fuzz::named::{self, Named};
use crm_fuzz::near::Cases;
use crm_fuzz::summary::Decision;
use crm_fuzz::tree::Xml;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

const HELP: &str = "\
crm-fuzz [--seeds A..B] [--only F,..] [--without F,..] [--with F,..] [--jobs N] [--show N] [--keep DIR] [--allow N] [--near DIR] [--print SEED] [--plan FILE [--rules R,..]]
  --seeds A..B,C  which random clusters (0..300)
  --only, --without   features; `--only help` lists them
  --with F,..     these too, of those that are only there on request
  --near DIR      not clusters of our own: the documents there, changed a little (the first round: as they are)
  --show N        cut down and print the first N differences (3)
  --keep DIR      write each difference that is cut down as AREA-SEED.xml and .txt
  --allow N       so many of them may differ
  --print SEED    the document of a seed, nothing else
  --plan FILE     what this engine makes of a document, by the old rules that are named";

struct Options {
    seeds: Vec<u64>,
    mask: Mask,
    /// Clusters near these in place of random ones.
    near: Option<Cases>,
    jobs: usize,
    show: usize,
    keep: Option<PathBuf>,
    allow: u64,
    print: Option<u64>,
    plan: Option<PathBuf>,
    rules: Habits,
}

/// A line of output. A reader that went away is no error of ours.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn options() -> Result<Options, String> {
    let mut out = Options {
        seeds: (0..300).collect(),
        mask: Mask::default(),
        near: None,
        jobs: 2,
        show: 3,
        keep: None,
        allow: 0,
        print: None,
        plan: None,
        rules: Habits::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{HELP}"));
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no number"));
        match word.as_str() {
            "--seeds" => {
                out.seeds.clear();
                for part in value()?.split(',') {
                    let (a, b) = part.split_once("..").map_or_else(
                        || number(part).map(|n| (n, n.saturating_add(1))),
                        |(a, b)| Ok((number(a)?, number(b)?)),
                    )?;
                    out.seeds.extend(a..b);
                }
            }
            "--only" => out.mask.only = features(&value()?)?,
            "--without" => out.mask.without = features(&value()?)?,
            "--with" => out.mask.with = features(&value()?)?,
            "--near" => out.near = Some(Cases::of(&PathBuf::from(value()?))?),
            "--jobs" => out.jobs = usize::try_from(number(&value()?)?).unwrap_or(1).max(1),
            "--show" => out.show = usize::try_from(number(&value()?)?).unwrap_or(usize::MAX),
            "--keep" => out.keep = Some(PathBuf::from(value()?)),
            "--allow" => out.allow = number(&value()?)?,
            "--plan" => out.plan = Some(PathBuf::from(value()?)),
            "--rules" => out.rules = known::habits(&value()?)?,
            "--print" => out.print = Some(number(&value()?)?),
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(out)
}

impl Options {
    fn document(&self, seed: u64) -> Result<Xml, String> {
        self.near.as_ref().map_or_else(|| Ok(cluster(seed, &self.mask)), |c| c.document(seed))
    }

    /// The seeds have all features and nothing else: what is named is about those.
    fn whole(&self) -> bool {
        let mask = &self.mask;
        let all = mask.only.is_empty() && mask.without.is_empty() && mask.with.is_empty();
        all && self.near.is_none()
    }
}

fn features(list: &str) -> Result<std::collections::BTreeSet<String>, String> {
    list.split(',')
        .map(|word| {
            if FEATURES.contains(&word) || ON_REQUEST.contains(&word) {
                Ok(word.to_owned())
            } else {
                Err(format!("no feature is called `{word}`: {}", FEATURES.join(" "))
                    + &format!("; on request: {}", ON_REQUEST.join(" ")))
            }
        })
        .collect()
}

/// How a seed came out.
enum Verdict {
    Same {
        executed: bool,
    },
    /// By old rules.
    Known(String),
    /// A slip of theirs on this very seed.
    Named(String),
    /// With the number of the difference.
    Different(Levels, u64),
    /// Theirs ended itself: there is nothing to compare with.
    TheirsAborts(String),
    /// One of the two did not take it.
    Refused(String),
}

fn judge(document: &Xml, oracle: &Oracle, named: Option<(u64, &Named)>) -> Verdict {
    let ours = ours(document);
    let theirs = match oracle.decide(document) {
        Ok((theirs, _)) => theirs,
        // What we make of it must be sound all the same.
        Err(Failure::Aborted(why)) if ours.is_ok() => return Verdict::TheirsAborts(why),
        Err(why) => return Verdict::Refused(format!("theirs: {why}")),
    };
    match ours {
        Ok((ours, _)) => compare(document, &ours, &theirs, named),
        Err(why) => Verdict::Refused(format!("ours: {why}")),
    }
}

/// As [`judge`]; where the case that a document is near to is decided differently itself, a change of it shows nothing.
fn judge_near(
    options: &Options,
    document: &Xml,
    oracle: &Oracle,
    (seed, named): (u64, &Named),
) -> Result<Verdict, String> {
    let case = options.near.as_ref().and_then(|cases| cases.origin(seed));
    if let Some(case) = case {
        let case = options.document(case)?;
        let same = match (ours(&case), oracle.decide(&case)) {
            (Ok((ours, _)), Ok((theirs, _))) => !Levels::of(&ours, &theirs).decides_differently(),
            _ => false,
        };
        if !same {
            return Ok(Verdict::Named("the case itself differs".to_owned()));
        }
    }
    Ok(judge(document, oracle, Some((seed, named))))
}

fn compare(
    document: &Xml,
    ours: &Decision,
    theirs: &Decision,
    named: Option<(u64, &Named)>,
) -> Verdict {
    let levels = Levels::of(ours, theirs);
    if !levels.decides_differently() {
        return Verdict::Same { executed: !levels.executed };
    }
    if let Some(cause) = named.and_then(|(seed, list)| list.cause(seed, ours, theirs)) {
        return Verdict::Named(cause.to_owned());
    }
    let different = || Verdict::Different(levels, named::mark(ours, theirs));
    let search = if named.is_some() { Search::Whole } else { Search::Quick };
    known::name(document, theirs, search).map_or_else(different, Verdict::Known)
}

fn judge_all(options: &Options) -> Result<Vec<(u64, Verdict)>, String> {
    let next = AtomicUsize::new(0);
    let named = if options.whole() { Named::recorded()? } else { Named::default() };
    let named = &named;
    let work = |name: String| -> Result<Vec<(u64, Verdict)>, String> {
        let oracle = Oracle::find(&name).ok_or("crm_simulate is not installed")?;
        let mut out = Vec::new();
        loop {
            let Some(seed) = options.seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied()
            else {
                return Ok(out);
            };
            let document = options.document(seed)?;
            out.push((seed, judge_near(options, &document, &oracle, (seed, named))?));
        }
    };
    let work = &work;
    let mut all = std::thread::scope(|scope| -> Result<Vec<_>, String> {
        let threads: Vec<_> =
            (0..options.jobs).map(|n| scope.spawn(move || work(n.to_string()))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(
                thread.join().map_err(|_| "a seed panicked; run with --jobs 1".to_owned())??,
            );
        }
        Ok(all)
    })?;
    all.sort_by_key(|(seed, _)| *seed);
    Ok(all)
}

/// Cuts a difference down and shows it.
fn explain(seed: u64, options: &Options) -> Result<(), String> {
    let oracle = Oracle::find("explain").ok_or("crm_simulate is not installed")?;
    let document = options.document(seed)?;
    let first = judge(&document, &oracle, None);
    let refused = matches!(first, Verdict::Refused(_));
    // A difference in what is seen at the beginning is another one.
    let seen = |v: &Verdict| matches!(v, Verdict::Different(levels, _) if levels.before);
    let small = minimise(&document, 1500, &mut |d| match judge(d, &oracle, None) {
        found @ Verdict::Different(..) => !refused && seen(&found) == seen(&first),
        Verdict::Refused(why) => refused && why.starts_with("ours"),
        _ => false,
    });
    let (their_run, theirs) = oracle.decide(&small).map_err(|why| why.to_string())?;
    let (area, ours) = match ours(&small) {
        Ok((run, text)) => {
            let levels = Levels::of(&run, &their_run);
            let area = match (levels.before, levels.placement) {
                (true, _) => "nodes",
                (false, true) => "places",
                (false, false) => "orders",
            };
            (area, text)
        }
        Err(why) => ("broken", why),
    };
    let from = |text: &str| {
        let at = text.find("Current cluster status").unwrap_or(0);
        text.get(at..).unwrap_or_default().to_owned()
    };
    let old = known::all_old(&small).unwrap_or_else(|why| why);
    let text = format!(
        "seed {seed} {}\n---- Debian's crm_simulate\n{}\n---- ours\n{}\n---- ours by all old rules\n{}\n",
        options.near.as_ref().map(|c| c.name(seed)).unwrap_or_default(),
        from(&theirs).trim(),
        ours.trim(),
        old.trim()
    );
    if let Some(dir) = &options.keep {
        let note = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(dir).map_err(note)?;
        std::fs::write(dir.join(format!("{area}-{seed}.xml")), small.to_string()).map_err(note)?;
        std::fs::write(dir.join(format!("{area}-{seed}.txt")), &text).map_err(note)?;
    } else {
        say(&small.to_string());
        say(&text);
    }
    Ok(())
}

fn run() -> Result<bool, String> {
    let options = options()?;
    if let Some(seed) = options.print {
        say(&options.document(seed)?.to_string());
        return Ok(true);
    }
    if let Some(path) = &options.plan {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        say(ours_of(&text, options.rules)?.1.trim_end());
        return Ok(true);
    }
    if Oracle::find("look").is_none() {
        say("SKIPPED: crm_simulate is not installed (cargo xtask setup)");
        return Ok(true);
    }
    let all = judge_all(&options)?;
    let sum = Sum::of(&all);
    let broken = sum.broken.iter().chain(sum.different.iter().map(|(seed, _)| seed));
    for seed in broken.take(options.show) {
        explain(*seed, &options)?;
    }
    sum.say(all.len());
    Ok(sum.wrong() <= options.allow)
}

/// All verdicts.
#[derive(Default)]
struct Sum {
    same: u64,
    executed: u64,
    refused: u64,
    aborted: Vec<u64>,
    known: BTreeMap<String, u64>,
    named: BTreeMap<String, u64>,
    different: Vec<(u64, Levels)>,
    /// What our own side refused.
    broken: Vec<u64>,
}

impl Sum {
    /// Counts; what has no name is said at once.
    fn of(all: &[(u64, Verdict)]) -> Self {
        let mut sum = Self::default();
        for (seed, verdict) in all {
            match verdict {
                Verdict::Same { executed } => {
                    sum.same += 1;
                    sum.executed += u64::from(*executed);
                }
                Verdict::Known(name) => *sum.known.entry(name.clone()).or_default() += 1,
                Verdict::Named(cause) => *sum.named.entry(cause.clone()).or_default() += 1,
                Verdict::Different(levels, mark) => {
                    sum.different.push((*seed, *levels));
                    say(&format!("seed {seed}: different, {mark:016x}"));
                }
                Verdict::TheirsAborts(why) => {
                    sum.aborted.push(*seed);
                    say(&format!("seed {seed}: theirs aborts: {why}"));
                }
                Verdict::Refused(why) => {
                    sum.refused += 1;
                    if why.starts_with("ours") {
                        sum.broken.push(*seed);
                    }
                    say(&format!("seed {seed}: {why}"));
                }
            }
        }
        sum
    }

    /// The result; the last line has the counts.
    fn say(&self, clusters: usize) {
        for (name, count) in &self.known {
            say(&format!("known difference `{name}`: {count}"));
        }
        for (cause, count) in &self.named {
            say(&format!("named difference `{cause}`: {count}"));
        }
        let list = |seeds: &mut dyn Iterator<Item = &u64>| {
            seeds.map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        say(&format!("theirs aborts: {}", list(&mut self.aborted.iter())));
        say(&format!("different: {}", list(&mut self.different.iter().map(|(seed, _)| seed))));
        let count = |f: fn(&Levels) -> bool| self.different.iter().filter(|(_, l)| f(l)).count();
        say(&format!(
            "clusters {clusters}  L1&L2 {}  known {}  named {}  theirs-aborts {}  different {} (L0 {} L1 {} L2 {})  refused {}  L3 {}",
            self.same,
            self.known.values().sum::<u64>(),
            self.named.values().sum::<u64>(),
            self.aborted.len(),
            self.different.len(),
            count(|l| l.before),
            count(|l| l.placement),
            count(|l| l.actions),
            self.refused,
            self.executed,
        ));
    }

    /// Clusters whose difference has no name, or that one of the two did not take.
    fn wrong(&self) -> u64 {
        u64::try_from(self.different.len()).unwrap_or(u64::MAX).saturating_add(self.refused)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}
