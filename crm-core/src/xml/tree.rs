//! Elements of a document with what the readers ask of them.

use super::Problem;
use crate::cib::parse_bool;
use roxmltree::Node;

/// What has attributes.
pub(super) trait Attributes {
    /// The value of one of them.
    fn attr(&self, name: &str) -> Option<&str>;
}

impl Attributes for Element<'_> {
    fn attr(&self, name: &str) -> Option<&str> {
        self.0.attribute(name)
    }
}

/// An element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'a>(Node<'a, 'a>);

impl<'a> Element<'a> {
    pub(super) const fn new(node: Node<'a, 'a>) -> Self {
        Self(node)
    }

    pub(super) fn name(self) -> &'a str {
        self.0.tag_name().name()
    }

    pub(super) fn attr(self, name: &str) -> Option<&'a str> {
        self.0.attribute(name)
    }

    pub(super) fn flag(self, name: &str) -> Option<bool> {
        self.attr(name).and_then(parse_bool)
    }

    /// The attribute, or nothing when it is absent.
    pub(super) fn word(self, name: &str) -> &'a str {
        self.attr(name).unwrap_or_default()
    }

    pub(super) fn attrs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.attributes().map(|a| (a.name(), a.value()))
    }

    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        self.0.children().filter(Node::is_element).map(Self)
    }

    pub(super) fn named(self, name: &'static str) -> impl Iterator<Item = Self> {
        self.children().filter(move |e| e.name() == name)
    }

    pub(super) fn child(self, name: &'static str) -> Option<Self> {
        self.named(name).next()
    }

    pub(super) fn descendants(self) -> impl Iterator<Item = Self> {
        self.0.descendants().filter(Node::is_element).map(Self)
    }

    /// Where it begins in the text.
    pub(super) fn start(self) -> usize {
        self.0.range().start
    }

    /// A problem that begins where the element does.
    pub(super) fn problem(self, code: &'static str, text: String) -> Problem {
        let at = self.0.document().text_pos_at(self.0.range().start);
        Problem::new((at.row, at.col), code, text)
    }

    /// A problem with an attribute; without it, with the element.
    pub(super) fn problem_of(self, name: &str, code: &'static str, text: String) -> Problem {
        let Some(attribute) = self.0.attribute_node(name) else { return self.problem(code, text) };
        let at = self.0.document().text_pos_at(attribute.range().start);
        Problem::new((at.row, at.col), code, text)
    }

    /// Line it begins in.
    pub(super) fn line(self) -> u32 {
        self.0.document().text_pos_at(self.0.range().start).row
    }
}
