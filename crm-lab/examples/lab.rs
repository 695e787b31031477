//! Development only: the lab without the rest of `crm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let words = match args.first().and_then(|a| a.to_str()) {
        Some("demo") => args.into_iter().skip(1).collect(),
        _ => args,
    };
    crm_lab::main(words)
}
