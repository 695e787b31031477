//! XML as a value: what the generator makes and the minimiser cuts down.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};

/// Names of elements that came from outside; there are few, and they stay.
static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

fn lasting(name: &str) -> &'static str {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let lasts: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(lasts);
    lasts
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xml {
    /// Its name.
    pub name: &'static str,
    /// Its attributes, as written.
    pub attrs: Vec<(String, String)>,
    /// What is in it.
    pub children: Vec<Self>,
}

impl Xml {
    /// An element with attributes.
    #[must_use]
    pub fn new(name: &'static str, attrs: &[(&str, &str)]) -> Self {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Self { name, attrs, children: Vec::new() }
    }

    /// The root of a text, without comments and texts in between.
    ///
    /// # Errors
    /// The text is not well-formed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document = roxmltree::Document::parse(text).map_err(|e| e.to_string())?;
        Ok(Self::of(document.root_element()))
    }

    fn of(node: roxmltree::Node<'_, '_>) -> Self {
        let attrs = node.attributes().map(|a| (a.name().to_owned(), a.value().to_owned()));
        Self {
            name: lasting(node.tag_name().name()),
            attrs: attrs.collect(),
            children: node.children().filter(|c| c.is_element()).map(Self::of).collect(),
        }
    }

    /// Writes an attribute, new or again.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.attrs.iter_mut().find(|(k, _)| k == name) {
            Some((_, known)) => value.clone_into(known),
            None => self.attrs.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Takes an attribute away.
    pub fn unset(&mut self, name: &str) {
        self.attrs.retain(|(k, _)| k != name);
    }

    /// The same with one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.attrs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with one more child.
    #[must_use]
    pub fn holding(mut self, child: Self) -> Self {
        self.children.push(child);
        self
    }

    /// Adds a child.
    pub fn push(&mut self, child: Self) {
        self.children.push(child);
    }

    /// An attribute.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// All elements, itself first.
    #[must_use]
    pub fn all(&self) -> Vec<&Self> {
        let mut out = vec![self];
        for child in &self.children {
            out.extend(child.all());
        }
        out
    }

    /// Elements of that name anywhere below.
    #[must_use]
    pub fn find(&self, name: &str) -> Vec<&Self> {
        self.all().into_iter().filter(|e| e.name == name).collect()
    }

    /// Values of all `nvpair`s of that name.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let pairs = self.find("nvpair").into_iter().filter(|p| p.attr("name") == Some(name));
        pairs.filter_map(|p| p.attr("value")).collect()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:1$}<{2}", "", depth * 2, self.name)?;
        for (name, value) in &self.attrs {
            write!(f, " {name}=\"")?;
            for c in value.chars() {
                match c {
                    '<' => f.write_str("&lt;")?,
                    '&' => f.write_str("&amp;")?,
                    '"' => f.write_str("&quot;")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_char('"')?;
        }
        if self.children.is_empty() {
            return f.write_str("/>\n");
        }
        f.write_str(">\n")?;
        for child in &self.children {
            child.write(f, depth + 1)?;
        }
        writeln!(f, "{:1$}</{2}>", "", depth * 2, self.name)
    }
}

impl fmt::Display for Xml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn what_is_written_can_be_read() {
        let tree = Xml::new("a", &[("x", "1 < 2 & \"3\"")]).holding(Xml::new("b", &[]));
        assert_eq!(tree.to_string(), "<a x=\"1 &lt; 2 &amp; &quot;3&quot;\">\n  <b/>\n</a>\n");
        assert_eq!(Xml::parse(&tree.to_string()).unwrap(), tree);
    }
}
