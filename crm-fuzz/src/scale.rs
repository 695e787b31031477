//! Large clusters for measuring: the same documents as the `gen_cib.py` of the conformance material makes, to the byte.

use std::fmt::Write as _;

/// What the cluster is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was ever probed: every resource is looked for on every node, then started.
    Cold,
    /// Everything was probed and runs, round robin.
    Steady,
    /// The same, the first node in standby: what it runs moves.
    Standby,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Steady => "steady",
            Self::Standby => "standby",
        }
    }
}

/// Digest of no parameters.
const EMPTY: &str = "f2317cad3d54cec5d7d7aa7d0bf35cf8";
const PLANNER: &str = "7d0bf35c-0000-4000-8000-000000000000";

/// A CIB with so many nodes and primitives.
#[must_use]
pub fn cib(nodes: usize, primitives: usize, state: State) -> String {
    let mut out = String::new();
    let wrote = write(&mut out, nodes, primitives, state);
    debug_assert!(wrote.is_ok(), "a string takes everything");
    out
}

fn write(out: &mut String, nodes: usize, primitives: usize, state: State) -> std::fmt::Result {
    writeln!(
        out,
        "<cib crm_feature_set=\"3.16.1\" validate-with=\"pacemaker-3.9\" epoch=\"1\" num_updates=\"0\" admin_epoch=\"0\" have-quorum=\"1\" dc-uuid=\"{nodes}\">\n\
         <configuration>\n\
         <crm_config><cluster_property_set id=\"o\"><nvpair id=\"o-f\" name=\"stonith-enabled\" value=\"false\"/><nvpair id=\"o-s\" name=\"symmetric-cluster\" value=\"true\"/></cluster_property_set></crm_config>\n\
         <nodes>"
    )?;
    for n in 0..nodes {
        write!(out, "<node id=\"{}\" uname=\"n{n:03}\">", n + 1)?;
        if state == State::Standby && n == 0 {
            write!(
                out,
                "<instance_attributes id=\"na-n{n:03}\"><nvpair id=\"na-n{n:03}-sb\" name=\"standby\" value=\"on\"/></instance_attributes>"
            )?;
        }
        out.push_str("</node>\n");
    }
    out.push_str("</nodes>\n<resources>\n");
    for p in 0..primitives {
        write!(
            out,
            "<primitive id=\"p{p:05}\" class=\"ocf\" provider=\"pacemaker\" type=\"Dummy\"></primitive>"
        )?;
    }
    out.push_str(
        "\n</resources>\n<constraints>\n</constraints>\n\
         <rsc_defaults><meta_attributes id=\"rd\"><nvpair id=\"rd-s\" name=\"resource-stickiness\" value=\"1\"/></meta_attributes></rsc_defaults>\n\
         </configuration>\n<status>\n",
    );
    for n in 0..nodes {
        let id = n + 1;
        writeln!(
            out,
            "<node_state id=\"{id}\" uname=\"n{n:03}\" in_ccm=\"true\" crmd=\"online\" join=\"member\" expected=\"member\"><lrm id=\"{id}\"><lrm_resources>"
        )?;
        if state != State::Cold {
            history(out, n, nodes, primitives)?;
        }
        write!(
            out,
            "</lrm_resources></lrm><transient_attributes id=\"{id}\"><instance_attributes id=\"st-{id}\">"
        )?;
        out.push_str("</instance_attributes></transient_attributes></node_state>\n");
    }
    out.push_str("</status>\n</cib>\n");
    Ok(())
}

/// What a node has recorded: a start of each of its own, a probe of each other one.
fn history(out: &mut String, n: usize, nodes: usize, primitives: usize) -> std::fmt::Result {
    for p in 0..primitives {
        let (op, code) = if p % nodes == n { ("start", 0) } else { ("monitor", 7) };
        let call = p + 1;
        write!(
            out,
            "<lrm_resource id=\"p{p:05}\" class=\"ocf\" provider=\"pacemaker\" type=\"Dummy\"><lrm_rsc_op id=\"p{p:05}_last_0\" operation_key=\"p{p:05}_{op}_0\" operation=\"{op}\" \
             crm_feature_set=\"3.16.1\" transition-key=\"{call}:0:{code}:{PLANNER}\" transition-magic=\"0:{code};{call}:0:{code}:{PLANNER}\" on_node=\"n{n:03}\" call-id=\"{call}\" \
             rc-code=\"{code}\" op-status=\"0\" interval=\"0\" op-digest=\"{EMPTY}\"/></lrm_resource>"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{State, cib};
    use std::path::Path;
    use std::process::Command;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "compares with a script")]
    fn the_documents_are_those_of_the_script_that_pacemaker_was_measured_with() {
        let root =
            std::env::var_os("CONFORMANCE").unwrap_or_else(|| "/work/shared/conformance".into());
        let script = Path::new(&root).join("scheduler/gen_cib.py");
        if !script.is_file() {
            eprintln!("SKIPPED: {} is absent", script.display());
            return;
        }
        for state in [State::Cold, State::Steady, State::Standby] {
            let words = ["--nodes", "3", "--prims", "14", "--state", state.word()];
            let output = Command::new("python3").arg(&script).args(words).output();
            let text = String::from_utf8(output.expect("python3 runs").stdout).expect("UTF-8");
            assert_eq!(cib(3, 14, state), text, "{state:?}");
        }
    }
}
