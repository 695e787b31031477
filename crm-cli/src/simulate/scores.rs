//! The table of scores: as Pacemaker's tools print it, and as one line per resource.

use crate::ui::table;
use crm_core::cib::Score;
use crm_core::plan::{ScorePhase, ScoreRow};
use std::collections::BTreeMap;

/// One line per resource and node, in the order in which they were taken.
pub(super) fn pacemaker(rows: &[ScoreRow]) -> String {
    let mut out = String::new();
    for row in rows {
        let ScoreRow { resource, node, score, .. } = row;
        out.push_str(&match row.phase {
            ScorePhase::Promotion if node.is_empty() => {
                format!("{resource} promotion score (inactive): {}\n", number(*score))
            }
            ScorePhase::Promotion => {
                format!("{resource} promotion score on {node}: {}\n", number(*score))
            }
            ScorePhase::Primitive => line("primitive_assign", row),
            ScorePhase::Group => line("group_assign", row),
            ScorePhase::Clone => line("clone_assign", row),
            ScorePhase::Bundle => line("bundle_assign", row),
        });
    }
    out
}

fn line(function: &str, row: &ScoreRow) -> String {
    let ScoreRow { resource, node, score, .. } = row;
    format!("pcmk__{function}: {resource} allocation score on {node}: {}\n", number(*score))
}

/// As Pacemaker writes scores.
fn number(score: Score) -> String {
    match score {
        Score::INF => "INFINITY".to_owned(),
        Score::NEG_INF => "-INFINITY".to_owned(),
        _ => score.value().to_string(),
    }
}

/// A table with a column per node: what each instance thought of each node when it was placed.
pub(super) fn ours(rows: &[ScoreRow]) -> String {
    let mut nodes: Vec<&str> = Vec::new();
    let mut order: Vec<&str> = Vec::new();
    let mut cells: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for row in rows.iter().filter(|r| r.phase == ScorePhase::Primitive) {
        if !nodes.contains(&row.node.as_str()) {
            nodes.push(&row.node);
        }
        if cells.insert((&row.resource, &row.node), row.score.to_string()).is_none()
            && order.last() != Some(&row.resource.as_str())
            && !order.contains(&row.resource.as_str())
        {
            order.push(&row.resource);
        }
    }
    let promotions = rows.iter().filter(|r| r.phase == ScorePhase::Promotion);
    let promotions: BTreeMap<&str, String> =
        promotions.map(|r| (r.resource.as_str(), r.score.to_string())).collect();
    let mut head = vec!["RESOURCE".to_owned()];
    head.extend(nodes.iter().map(|n| (*n).to_owned()));
    if !promotions.is_empty() {
        head.push("PROMOTION".to_owned());
    }
    let mut all = vec![head];
    for resource in order {
        let mut line = vec![resource.to_owned()];
        for node in &nodes {
            line.push(cells.get(&(resource, *node)).cloned().unwrap_or_default());
        }
        line.extend(promotions.get(resource).cloned());
        all.push(line);
    }
    format!("Scores:\n{}", table(&all, "  "))
}
