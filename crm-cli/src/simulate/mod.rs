//! `crm simulate`: the policy engine on the live cluster's state or on files, with "what if"; changes nothing anywhere.

mod graph;
mod json;
mod layers;
mod pacemaker;
mod plain;
mod scores;
mod steps;
mod svg;
#[cfg(test)]
mod tests;

use crate::Shell;
use crate::args::{Format, SimulateArgs, Style};
use crate::fail::Fail;
use crate::scene::{Extent, Scene, load, not_a_result};
use crm_core::audit::without_a_place;
use crm_core::simulate::{Ask, Outcome, Run, parse_outcome, run_as};
use crm_core::why::Facts;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// A simulation with what is to be told around it.
struct Told<'a> {
    run: &'a Run,
    scene: &'a Scene,
    /// What was assumed.
    assumed: &'a [String],
    /// Why a resource (by its label) changes.
    causes: BTreeMap<String, String>,
    /// What is wanted and can run nowhere.
    placeless: Vec<String>,
}

/// A simulation in the sections and words of `crm_simulate -S`.
pub(crate) fn pacemaker_style(run: &Run) -> String {
    pacemaker::render_run(run)
}

/// Carries the command out.
pub(crate) fn run(shell: &mut Shell<'_>, args: &SimulateArgs) -> Result<(), Fail> {
    let outcomes: Vec<Outcome> = args
        .op_result
        .iter()
        .map(|text| parse_outcome(text).ok_or_else(|| not_a_result(text, "--op-result")))
        .collect::<Result<_, _>>()?;
    let told = args.output == Format::Json || args.style == Style::Plain;
    let bare = args.plan_only && !told;
    let scene = load(shell, &args.scene, if bare { Extent::Plan } else { Extent::All })?;
    let ask = Ask { mind: scene.mind, scores: args.scores || told, plan_only: args.plan_only };
    let run = run_as(&scene.document, ask, &outcomes);
    if let Some(path) = &args.graph {
        let note = |error: std::io::Error| unwritable(path, &error);
        let mut file = BufWriter::new(File::create(path).map_err(note)?);
        graph::xml(&mut file, &run.plan, &scene.document).map_err(note)?;
        file.flush().map_err(note)?;
    }
    if let Some(path) = &args.dot {
        write(path, &graph::dot(&run.plan))?;
    }
    if let Some(path) = &args.svg {
        write(path, &svg::render(&steps::steps(&run)))?;
    }
    let facts = told.then(|| Facts::of(&scene.document, scene.mind, &run));
    let placeless = facts.as_ref().map(without_a_place).unwrap_or_default();
    let causes = facts.map(|facts| facts.causes()).unwrap_or_default();
    let told = Told { run: &run, scene: &scene, assumed: &scene.assumed, causes, placeless };
    if args.output == Format::Json {
        return shell.json(&json::render(&told, args.scores));
    }
    let text = match args.style {
        Style::Pacemaker => pacemaker::render(&told, args.scores),
        Style::Plain => {
            let mut text = plain::render(&told);
            if args.scores {
                text.push_str(&scores::ours(&run.scores));
            }
            text
        }
    };
    shell.ui.data(&text);
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Fail> {
    std::fs::write(path, text).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fail {
    let remedy = "name a file in a folder that is there and that you may write to";
    Fail::with_remedy(format!("cannot write {}: {error}", path.display()), remedy)
}
