//! `cargo xtask test`: all that CI runs. The last line is `N passed, N failed`.

use crate::conformance;
use crate::exec::{self, cargo, command, is_root, say};
use crate::fuzz;
use crate::setup;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

#[derive(Default)]
struct Score {
    passed: u64,
    failed: u64,
    broken: Vec<String>,
}

impl Score {
    /// A step that passes or fails as one.
    fn step(&mut self, name: &str, command: &mut Command) {
        let start = Instant::now();
        say(&format!("== {name}"));
        let result = exec::run(command);
        say(&format!("== {name}: {:.0} s", start.elapsed().as_secs_f64()));
        match result {
            Ok(()) => self.passed += 1,
            Err(why) => self.fail(name, &why),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        say(&format!("FAILED {name}: {why}"));
        self.failed += 1;
        self.broken.push(name.to_owned());
    }

    /// A test runner: each of its tests counts.
    fn tests(&mut self, name: &str, command: &mut Command) {
        let start = Instant::now();
        say(&format!("== {name}"));
        match counted(command) {
            Ok((passed, failed, ok)) => {
                self.passed += passed;
                self.failed += failed;
                if !ok && failed == 0 {
                    self.fail(name, "the runner failed without naming a test");
                } else if failed > 0 {
                    self.broken.push(name.to_owned());
                }
            }
            Err(why) => self.fail(name, &why),
        }
        say(&format!("== {name}: {:.0} s", start.elapsed().as_secs_f64()));
    }
}

/// Runs a test runner with its output passed through; passed, failed, and whether it ended well.
fn counted(command: &mut Command) -> Result<(u64, u64, bool), String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("start the runner: {e}"))?;
    let (out, error) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || error.map_or((0, 0), tally));
    let (passed, failed) = out.map_or((0, 0), tally);
    let (more_passed, more_failed) =
        reader.join().map_err(|_| "the reader of the runner's output panicked".to_owned())?;
    let status = child.wait().map_err(|e| format!("wait for the runner: {e}"))?;
    Ok((passed + more_passed, failed + more_failed, status.success()))
}

fn tally(stream: impl std::io::Read) -> (u64, u64) {
    let (mut passed, mut failed) = (0, 0);
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        say(&line);
        // nextest: `Summary [ 1.2s] 12 tests run: 11 passed, 1 failed, 2 skipped`; libtest: `test result: ok. 3 passed; 0 failed;`
        let summary = line.contains("Summary [") || line.starts_with("test result:");
        if summary {
            passed += before(&line, " passed");
            failed += before(&line, " failed") + before(&line, " timed out");
        }
    }
    (passed, failed)
}

/// The number that stands before `word`.
fn before(line: &str, word: &str) -> u64 {
    let Some((head, _)) = line.split_once(word) else { return 0 };
    head.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// `cargo xtask test`.
pub(crate) fn run() -> Result<(), String> {
    setup::run()?;
    let mut score = Score::default();
    score.step("format", &mut cargo(&["fmt", "--all", "--check"]));
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    score.step("lints", &mut cargo(&lints));
    let binary = exec::build_release()?;
    if !is_root() {
        say("not root: the tests in namespaces skip themselves");
    }
    let next = exec::build_next()?;
    if exec::works("cargo", &["nextest", "--version"]) {
        let all = ["nextest", "run", "--workspace", "--locked", "--no-fail-fast"];
        score.tests("tests", cargo(&all).env("CRM_BIN", &binary).env("CRM_NEXT", &next));
    } else {
        // nextest builds the examples that the tests start; `cargo test --all-targets` only makes tests of them.
        score.step("examples", &mut cargo(&["build", "--workspace", "--locked", "--examples"]));
        let all = ["test", "--workspace", "--locked", "--no-fail-fast", "--all-targets"];
        score.tests("tests", cargo(&all).env("CRM_BIN", &binary).env("CRM_NEXT", &next));
    }
    say("== conformance");
    match conformance::run(&[binary.to_string_lossy().into_owned()]) {
        Ok(()) => score.passed += 1,
        Err(why) => score.fail("conformance", &why),
    }
    say("== fuzz-scheduler");
    match fuzz::run(&["--show".to_owned(), "3".to_owned()]) {
        Ok(()) => score.passed += 1,
        Err(why) => score.fail("fuzz-scheduler", &why),
    }
    score.tests("doctests", &mut cargo(&["test", "--workspace", "--locked", "--doc"]));
    let docs = ["doc", "--workspace", "--locked", "--no-deps", "--document-private-items"];
    score.step("docs", cargo(&docs).env("RUSTDOCFLAGS", "-D warnings"));
    if exec::works("cargo", &["deny", "--version"]) {
        score.step("licences", command("cargo").args(["deny", "check", "licenses", "bans"]));
    }
    for name in &score.broken {
        say(&format!("failed: {name}"));
    }
    say(&format!("{} passed, {} failed", score.passed, score.failed));
    if score.failed == 0 { Ok(()) } else { Err(String::new()) }
}
