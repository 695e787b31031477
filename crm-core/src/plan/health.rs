//! Node health: `#health-...` attributes become a score of the whole node.

use super::model::{Model, NodeIx, RscIx};
use crate::cib::Score;

/// What the strategy makes of colours.
struct Colours {
    red: Score,
    yellow: Score,
    green: Score,
    base: Score,
}

/// What the health of each node means for the resources: a location for each that is not part of another and does not mind.
pub(super) fn locations(model: &Model<'_>) -> Vec<(RscIx, NodeIx, Score)> {
    let Some(colours) = colours(model) else { return Vec::new() };
    let mut out = Vec::new();
    for n in 0..model.nodes.len() {
        let Some(health) = health(model, n, &colours).filter(|h| *h != Score::ZERO) else {
            continue;
        };
        for r in &model.tops {
            if health > Score::ZERO || !model.rscs[*r].meta.allow_unhealthy {
                out.push((*r, n, health));
            }
        }
    }
    out
}

fn colours(model: &Model<'_>) -> Option<Colours> {
    let properties = &model.cib.properties;
    let number =
        |name: &str, default: Score| properties.get(name).and_then(Score::parse).unwrap_or(default);
    let zero = Score::ZERO;
    match properties.get("node-health-strategy") {
        Some("migrate-on-red") => {
            Some(Colours { red: Score::NEG_INF, yellow: zero, green: zero, base: zero })
        }
        Some("only-green") => {
            let never = Score::NEG_INF;
            Some(Colours { red: never, yellow: never, green: zero, base: zero })
        }
        Some("progressive" | "custom") => Some(Colours {
            red: number("node-health-red", Score::NEG_INF),
            yellow: number("node-health-yellow", zero),
            green: number("node-health-green", zero),
            base: number("node-health-base", zero),
        }),
        Some(_) | None => None,
    }
}

fn health(model: &Model<'_>, node: NodeIx, colours: &Colours) -> Option<Score> {
    let n = &model.nodes[node];
    let transient = n.transient.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str()));
    let permanent = n.permanent.into_iter().flat_map(|p| &p.pairs);
    let permanent = permanent.filter_map(|p| Some((p.name.as_str(), p.value.as_deref()?)));
    let mut sum = None;
    for (name, value) in transient.chain(permanent) {
        if !name.starts_with("#health") {
            continue;
        }
        let score = match value.to_ascii_lowercase().as_str() {
            "red" => colours.red,
            "yellow" => colours.yellow,
            "green" => colours.green,
            other => Score::parse(other).unwrap_or(Score::ZERO),
        };
        sum = Some(sum.unwrap_or(colours.base).plus(score));
    }
    sum.or_else(|| (colours.base != Score::ZERO).then_some(colours.base))
}
