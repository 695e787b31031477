//! Recorded histories are nearly all of a large CIB: they are read from the text as it stands, without a tree.
//!
//! Only the form in which Pacemaker writes them is known here. Whatever else is met (comments, other elements, strange attributes) ends it,
//! and the whole document is read as a tree, which says what is wrong and where.

use super::history::{is_plain, operation, resource};
use super::tree::Attributes;
use crate::lrm::RscRecord;
use std::borrow::Cow;
use std::collections::BTreeMap;

const OPEN: &str = "<lrm_resources>";
const CLOSE: &str = "</lrm_resources>";

/// A document without its histories.
pub(super) struct Cut {
    /// What is left: each `lrm_resources` is empty.
    pub(super) text: String,
    /// What was in them, by where they begin in what is left.
    pub(super) records: BTreeMap<usize, Vec<RscRecord>>,
}

/// Cuts the histories out; nothing when there are none, or any is not in the usual form.
pub(super) fn cut(text: &str) -> Option<Cut> {
    let mut out = Cut { text: String::new(), records: BTreeMap::new() };
    let mut rest = text;
    while let Some(at) = rest.find(OPEN) {
        let (before, from) = rest.split_at(at);
        let inner = from.strip_prefix(OPEN)?;
        let (inner, after) = inner.split_at(inner.find(CLOSE)?);
        if out.records.is_empty() && !before.contains("</configuration>") {
            // Places in the configuration would not be those of the whole text.
            return None;
        }
        out.text.push_str(before);
        out.records.insert(out.text.len(), records(inner)?);
        out.text.push_str(OPEN);
        rest = after;
    }
    out.text.push_str(rest);
    // There, references mean what the document says.
    (!out.records.is_empty() && !out.text.contains("<!DOCTYPE")).then_some(out)
}

fn records(inner: &str) -> Option<Vec<RscRecord>> {
    let mut scan = Scan { rest: inner };
    let mut out = Vec::new();
    loop {
        scan.space();
        if scan.rest.is_empty() {
            return Some(out);
        }
        scan.take("<lrm_resource ")?;
        let own = scan.attributes()?;
        let mut ops = Vec::new();
        if scan.take("/>").is_none() {
            scan.take(">")?;
            let id = own.attr("id").unwrap_or_default();
            loop {
                scan.space();
                if scan.take("</lrm_resource>").is_some() {
                    break;
                }
                scan.take("<lrm_rsc_op ")?;
                let op = scan.attributes()?;
                if scan.take("/>").is_none() {
                    scan.take(">")?;
                    scan.space();
                    scan.take("</lrm_rsc_op>")?;
                }
                if !is_plain(&op) {
                    return None;
                }
                ops.push(operation(&op, id));
            }
        }
        ops.shrink_to_fit();
        out.push(resource(&own, ops));
    }
}

/// Attributes of one element; there are few of them.
struct Found<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl Attributes for Found<'_> {
    fn attr(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_ref())
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\n', '\t', '\r']);
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    /// `name="value" ...` up to the end of the tag.
    fn attributes(&mut self) -> Option<Found<'a>> {
        let mut out = Found(Vec::with_capacity(16));
        loop {
            let before = self.rest.len();
            self.space();
            if self.rest.starts_with(['/', '>']) {
                return Some(out);
            }
            let (name, value) = self.rest.split_once('=')?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            let apart = out.0.is_empty() || self.rest.len() < before;
            let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
            if !apart || !begins || !name.bytes().all(plain) || out.attr(name).is_some() {
                return None;
            }
            let quote = value.bytes().next().filter(|q| matches!(q, b'"' | b'\''))?;
            let value = value.get(1..)?;
            let end = value.bytes().position(|b| b == quote || b == b'<' || b < b' ')?;
            let (value, after) = value.split_at(end);
            if after.bytes().next() != Some(quote) {
                return None;
            }
            let value = if value.contains('&') { decoded(value)? } else { Cow::Borrowed(value) };
            out.0.push((name, value));
            self.rest = after.get(1..)?;
        }
    }
}

/// A value with its references replaced, where they are the usual ones.
fn decoded(value: &str) -> Option<Cow<'_, str>> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let (name, after) = after.split_once(';')?;
        out.push(match name {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use crate::xml::{read, read_whole};

    const HEAD: &str = "<cib><configuration><nodes><node id=\"1\" uname=\"a\"/></nodes><resources/></configuration><status><node_state id=\"1\"><lrm>";
    const TAIL: &str = "</lrm></node_state></status></cib>";
    const OP: &str = "<lrm_rsc_op id=\"x_last_0\" operation=\"start\" call-id='3' rc-code=\"1\" exit-reason=\"&lt;&quot;a&quot; &amp; b&gt;\"  op-status=\"4\" transition-key=\"1:2:0:u\" transition-magic=\"4:1;1:2:0:u\"/>";

    fn document(inner: &str) -> String {
        format!("{HEAD}<lrm_resources>{inner}</lrm_resources>{TAIL}")
    }

    #[test]
    fn histories_are_the_same_with_and_without_a_tree() {
        let own = "<lrm_resource id=\"x\" class=\"ocf\" provider=\"p\" type=\"D\" container=\"c\" shutdown-lock=\"7\">";
        for inner in [
            String::new(),
            format!("{own}{OP}</lrm_resource>"),
            format!("{own}\n  {OP}\n{OP} </lrm_resource>\n<lrm_resource id=\"y\"/>\n"),
            format!("{own}<lrm_rsc_op id=\"z\"> </lrm_rsc_op></lrm_resource>"),
            // These are left to the tree.
            format!("<!-- <lrm_resources> -->{own}{OP}</lrm_resource>"),
            format!("{own}<!-- here -->{OP}</lrm_resource>"),
            format!("{own}<lrm_rsc_op id=\"&#65;\" operation = \"stop\"/></lrm_resource>"),
            format!("{own}<lrm_rsc_op id=\"a\nb\"/></lrm_resource>"),
            format!("{own}<lrm_rsc_op id=\"a\" rc-code=\"x\"/></lrm_resource>"),
        ] {
            let text = document(&inner);
            let whole = read_whole(&text, 0).expect("a good CIB");
            assert_eq!(read(&text, 0).expect("a good CIB"), whole, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_history_is_told_with_its_place_in_the_whole_document() {
        for inner in [
            "<lrm_resource id=\"x\"><strange/></lrm_resource>",
            "<lrm_resource id=\"x\" id=\"y\"/>",
            "<lrm_resource id=\"x\"class=\"y\"/>",
            "<lrm_resource id=\"x\"><lrm_rsc_op id=\"a<b\"/></lrm_resource>",
            "<lrm_resource id=\"x\"><lrm_rsc_op id=\"&no;\"/></lrm_resource>",
            "<lrm_resource id=\"x\">",
        ] {
            let text = document(inner);
            let problems = read(&text, 0).expect_err(inner);
            assert_eq!(problems, read_whole(&text, 0).expect_err(inner));
        }
    }
}
