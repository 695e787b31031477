//! The agents and their tools alone, as the one executable has them: what the tests of this package run as child processes.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let called = args.first().and_then(|a| a.rsplit('/').next()).unwrap_or_default().to_owned();
    let word = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    if word(1) == "agent" && called.starts_with("agent") {
        return crm_agents::native::main(word(2), word(3));
    }
    crm_agents::shim::main(&called, args.get(1..).unwrap_or_default())
}
