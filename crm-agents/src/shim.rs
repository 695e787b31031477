//! Commands of Pacemaker that agents call: `crm_master`, `crm_attribute`, `attrd_updater`, `crm_node`, `crm_resource`.
//! Only what agents use; anything else is refused by name.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "these are commands")]

use crm_proto::line::Line;
use crm_proto::local::{self, Reply, Request};
use std::process::ExitCode;
use std::time::Duration;

/// Limit for talking to crmd.
const LIMIT: Duration = Duration::from_secs(10);
/// Pacemaker's "no such device or address": no value.
const NO_VALUE: u8 = 6;

#[derive(Debug, Default)]
struct Asked {
    name: Option<String>,
    value: Option<String>,
    node: Option<String>,
    default: Option<String>,
    delete: bool,
    quiet: bool,
    promotion: bool,
}

/// Runs the shim called `name`.
#[must_use]
pub fn main(name: &str, args: &[String]) -> ExitCode {
    match run(name, args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::from(1)
        }
    }
}

fn run(name: &str, args: &[String]) -> Result<ExitCode, String> {
    match name {
        "crm_node" => node(args),
        "crm_resource" => Err("agents are served crm_attribute and crm_node only".to_owned()),
        _ => attribute(name, args),
    }
}

fn node(args: &[String]) -> Result<ExitCode, String> {
    match args.first().map(String::as_str) {
        Some("-n" | "--name") => {
            let me = std::env::var("CRM_NODE").map_err(|_| "CRM_NODE is not set".to_owned())?;
            println!("{me}");
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("option {other:?} is not served")),
    }
}

/// Splits `--name=value` and `-lreboot` into option and value.
fn words(args: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some((option, value)) if option.starts_with("--") => {
                out.extend([option.to_owned(), value.to_owned()]);
            }
            _ => match (arg.get(..2), arg.get(2..)) {
                (Some(option), Some(value))
                    if !value.is_empty() && !arg.starts_with("--") && arg.starts_with('-') =>
                {
                    out.extend([option.to_owned(), value.to_owned()]);
                }
                _ => out.push(arg.clone()),
            },
        }
    }
    out
}

fn parse(args: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = words(args).into_iter().peekable();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "-n" | "--name" => asked.name = Some(value()?),
            "-v" | "--update" | "-U" | "-B" => asked.value = Some(value()?),
            "-N" | "--node" | "-H" => asked.node = Some(value()?),
            "-d" | "--default" => asked.default = Some(value()?),
            "-l" | "--lifetime" | "-t" | "--type" | "-s" | "--set-name" | "-S" | "-r"
            | "--resource-id" | "--delay" | "-i" => {
                value()?;
            }
            "-D" | "--delete" => asked.delete = true,
            // Asking is what is done when nothing is set or deleted.
            "-G" | "--query" => {}
            "-Q" | "-q" | "--quiet" => asked.quiet = true,
            "-p" | "--promotion" => {
                asked.promotion = true;
                if words.peek().is_some_and(|next| !next.starts_with('-')) {
                    asked.name = words.next().map(|r| format!("master-{r}"));
                }
            }
            "-V" | "--verbose" | "-w" | "-W" => {}
            other => return Err(format!("option `{other}` is not served")),
        }
    }
    Ok(asked)
}

fn attribute(called: &str, args: &[String]) -> Result<ExitCode, String> {
    let mut asked = parse(args)?;
    if (asked.promotion || called == "crm_master") && asked.name.is_none() {
        let instance = std::env::var("OCF_RESOURCE_INSTANCE")
            .map_err(|_| "OCF_RESOURCE_INSTANCE is not set".to_owned())?;
        // Anonymous clones are known by their primitive's name.
        let primitive = instance.split(':').next().unwrap_or_default();
        asked.name = Some(format!("master-{primitive}"));
    }
    let name = asked.name.clone().ok_or("which attribute? (-n NAME)")?;
    if asked.value.is_some() || asked.delete {
        let me = std::env::var("CRM_NODE").unwrap_or_default();
        if asked.node.as_ref().is_some_and(|n| *n != me) {
            return Err("attributes of other nodes are theirs to set".to_owned());
        }
        let value = asked.value.filter(|_| !asked.delete);
        return match call(&Request::SetAttr { name, value })? {
            Reply::Refused { why, .. } => Err(why),
            _ => Ok(ExitCode::SUCCESS),
        };
    }
    match call(&Request::GetAttr { node: asked.node.clone(), name: name.clone() })? {
        Reply::Attr(found) => Ok(show(&asked, &name, found)),
        Reply::Refused { why, .. } => Err(why),
        _ => Err("crmd gave an answer of another kind".to_owned()),
    }
}

fn show(asked: &Asked, name: &str, found: Option<String>) -> ExitCode {
    let Some(value) = found.or_else(|| asked.default.clone()) else {
        return ExitCode::from(NO_VALUE);
    };
    if asked.quiet {
        println!("{value}");
    } else {
        println!("scope=status  name={name} value={value}");
    }
    ExitCode::SUCCESS
}

fn call(request: &Request) -> Result<Reply, String> {
    Line::call(&local::socket_path(), Some(LIMIT), request).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_debians_agents_are_understood() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let asked = parse(&args("-l reboot -v 10")).unwrap();
        assert_eq!(asked.value.as_deref(), Some("10"));
        let asked = parse(&args("-p -v 5")).unwrap();
        assert!(asked.promotion && asked.name.is_none());
        let asked = parse(&args("--name=pingd --query -Q")).unwrap();
        assert!(asked.quiet && asked.name.as_deref() == Some("pingd"));
        assert!(parse(&args("--frobnicate")).is_err());
    }
}
