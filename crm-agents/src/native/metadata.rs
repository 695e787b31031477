//! The `meta-data` of native agents (OCF resource agent API 1.1, section 5).

use super::Agent;
use std::fmt::Write;

/// The XML.
pub(crate) fn xml(agent: &Agent) -> String {
    let mut out = String::new();
    let about = escape(agent.about);
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line("<?xml version=\"1.0\"?>");
    line(&format!(
        "<resource-agent name=\"{}\" version=\"{}\">",
        agent.name,
        env!("CARGO_PKG_VERSION")
    ));
    line("<version>1.1</version>");
    line(&format!("<longdesc lang=\"en\">{about}</longdesc>"));
    line(&format!("<shortdesc lang=\"en\">{about}</shortdesc>"));
    line("<parameters>");
    for param in agent.params {
        let mut text = String::new();
        let required = u8::from(param.required);
        let about = escape(param.about);
        let name = param.name;
        if write!(
            text,
            "<parameter name=\"{name}\" required=\"{required}\"><longdesc lang=\"en\">{about}</longdesc>\
             <shortdesc lang=\"en\">{about}</shortdesc><content type=\"string\"/></parameter>"
        )
        .is_ok()
        {
            line(&text);
        }
    }
    line("</parameters>");
    line("<actions>");
    line("<action name=\"start\" timeout=\"60s\"/>");
    line("<action name=\"stop\" timeout=\"60s\"/>");
    if agent.promotable {
        line("<action name=\"promote\" timeout=\"60s\"/>");
        line("<action name=\"demote\" timeout=\"60s\"/>");
        line("<action name=\"monitor\" timeout=\"20s\" interval=\"20s\" role=\"Unpromoted\"/>");
        line("<action name=\"monitor\" timeout=\"20s\" interval=\"10s\" role=\"Promoted\"/>");
    } else {
        line("<action name=\"monitor\" timeout=\"20s\" interval=\"10s\"/>");
    }
    if agent.migratable {
        line("<action name=\"migrate_to\" timeout=\"60s\"/>");
        line("<action name=\"migrate_from\" timeout=\"60s\"/>");
    }
    line("<action name=\"validate-all\" timeout=\"5s\"/>");
    line("<action name=\"meta-data\" timeout=\"5s\"/>");
    line("</actions>");
    line("</resource-agent>");
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
