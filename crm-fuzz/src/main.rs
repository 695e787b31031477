//! Dev: `crm-fuzz --seeds A..B`: this engine against Debian's `crm_simulate` on random clusters; see `cargo xtask fuzz-scheduler`.

use crm_fuzz::engine::{Levels, Oracle, ours};
use crm_fuzz::generate::{FEATURES, Mask, ON_REQUEST, cluster};
use crm_fuzz::known;
use crm_fuzz::minimise::minimise;
use crm_fuzz::summary::Decision;
use crm_fuzz::tree::Xml;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

const HELP: &str = "\
crm-fuzz [--seeds A..B] [--only F,..] [--without F,..] [--jobs N] [--show N] [--keep DIR] [--allow N] [--print SEED]
  --seeds A..B,C  which random clusters (0..300)
  --only, --without   features; `--only help` lists them
  --show N        cut down and print the first N differences (3)
  --keep DIR      write each difference that is cut down as AREA-SEED.xml and .txt
  --allow N       so many of them may differ
  --print SEED    the document of a seed, nothing else";

struct Options {
    seeds: Vec<u64>,
    mask: Mask,
    jobs: usize,
    show: usize,
    keep: Option<PathBuf>,
    allow: u64,
    print: Option<u64>,
}

/// A line of output. A reader that went away is no error of ours.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn options() -> Result<Options, String> {
    let mut out = Options {
        seeds: (0..300).collect(),
        mask: Mask::default(),
        jobs: 2,
        show: 3,
        keep: None,
        allow: 0,
        print: None,
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
            "--jobs" => out.jobs = usize::try_from(number(&value()?)?).unwrap_or(1).max(1),
            "--show" => out.show = usize::try_from(number(&value()?)?).unwrap_or(usize::MAX),
            "--keep" => out.keep = Some(PathBuf::from(value()?)),
            "--allow" => out.allow = number(&value()?)?,
            "--print" => out.print = Some(number(&value()?)?),
            _ => return Err(HELP.to_owned()),
        }
    }
    Ok(out)
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
    Known(String),
    Different(Levels),
    /// One of the two did not take it.
    Refused(String),
}

fn judge(document: &Xml, oracle: &Oracle) -> Verdict {
    let theirs = match oracle.decide(document) {
        Ok((theirs, _)) => theirs,
        Err(why) => return Verdict::Refused(format!("theirs: {why}")),
    };
    match ours(document) {
        Ok((ours, _)) => compare(document, &ours, &theirs),
        Err(why) => Verdict::Refused(format!("ours: {why}")),
    }
}

fn compare(document: &Xml, ours: &Decision, theirs: &Decision) -> Verdict {
    let levels = Levels::of(ours, theirs);
    if !levels.decides_differently() {
        return Verdict::Same { executed: !levels.executed };
    }
    known::name(document, theirs).map_or(Verdict::Different(levels), Verdict::Known)
}

fn judge_all(options: &Options) -> Result<Vec<(u64, Verdict)>, String> {
    let next = AtomicUsize::new(0);
    let work = |name: String| -> Result<Vec<(u64, Verdict)>, String> {
        let oracle = Oracle::find(&name).ok_or("crm_simulate is not installed")?;
        let mut out = Vec::new();
        loop {
            let Some(seed) = options.seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied()
            else {
                return Ok(out);
            };
            out.push((seed, judge(&cluster(seed, &options.mask), &oracle)));
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
    let document = cluster(seed, &options.mask);
    let first = judge(&document, &oracle);
    let refused = matches!(first, Verdict::Refused(_));
    // A difference in what is seen at the beginning is another one.
    let seen = |v: &Verdict| matches!(v, Verdict::Different(levels) if levels.before);
    let small = minimise(&document, 1500, &mut |d| match judge(d, &oracle) {
        found @ Verdict::Different(_) => !refused && seen(&found) == seen(&first),
        Verdict::Refused(why) => refused && why.starts_with("ours"),
        Verdict::Same { .. } | Verdict::Known(_) => false,
    });
    let (their_run, theirs) = oracle.decide(&small)?;
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
        "seed {seed}\n---- Debian's crm_simulate\n{}\n---- ours\n{}\n---- ours by all old rules\n{}\n",
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
        say(&cluster(seed, &options.mask).to_string());
        return Ok(true);
    }
    if Oracle::find("look").is_none() {
        say("SKIPPED: crm_simulate is not installed (cargo xtask setup)");
        return Ok(true);
    }
    let all = judge_all(&options)?;
    let (mut same, mut executed, mut refused) = (0_u64, 0_u64, 0_u64);
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let (mut different, mut broken) = (Vec::new(), Vec::new());
    for (seed, verdict) in &all {
        match verdict {
            Verdict::Same { executed: all } => {
                same += 1;
                executed += u64::from(*all);
            }
            Verdict::Known(name) => *known.entry(name.clone()).or_default() += 1,
            Verdict::Different(levels) => different.push((*seed, *levels)),
            Verdict::Refused(why) => {
                refused += 1;
                if why.starts_with("ours") {
                    broken.push(*seed);
                }
                say(&format!("seed {seed}: {why}"));
            }
        }
    }
    broken.extend(different.iter().map(|(seed, _)| *seed));
    for seed in broken.iter().take(options.show) {
        explain(*seed, &options)?;
    }
    for (name, count) in &known {
        say(&format!("known difference `{name}`: {count}"));
    }
    let count = |f: fn(&Levels) -> bool| different.iter().filter(|(_, l)| f(l)).count();
    let seeds: Vec<String> = different.iter().map(|(seed, _)| seed.to_string()).collect();
    say(&format!("different: {}", seeds.join(" ")));
    say(&format!(
        "clusters {}  L1&L2 {same}  known {}  different {} (L0 {} L1 {} L2 {})  refused {refused}  L3 {executed}",
        all.len(),
        known.values().sum::<u64>(),
        different.len(),
        count(|l| l.before),
        count(|l| l.placement),
        count(|l| l.actions),
    ));
    let wrong = u64::try_from(different.len()).unwrap_or(u64::MAX).saturating_add(refused);
    Ok(wrong <= options.allow)
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
