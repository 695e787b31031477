//! What is wrong with a text, where, and what was probably meant.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// A stretch of one line of a file. Lines and columns count from 1, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// File name as given by the caller (`<stdin>` for a terminal).
    pub file: Arc<str>,
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Characters to underline, at least 1.
    pub length: usize,
    /// The whole line.
    pub source: Arc<str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// How bad a finding is. Errors refuse the text; warnings and notes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Probably not what was meant; accepted.
    Warning,
    /// Refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding about a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code, `CRM0012`.
    pub code: String,
    /// File; empty when the object did not come from a text.
    pub file: String,
    /// Line from 1; 0 without a place.
    pub line: usize,
    /// Column from 1; 0 without a place.
    pub column: usize,
    /// Characters underlined.
    pub length: usize,
    /// What is wrong.
    pub message: String,
    /// What may stand there.
    pub expected: Option<String>,
    /// What to do, mostly the nearest known name.
    pub help: Option<String>,
    /// The line, or the part of a long one around the place.
    pub source: String,
    /// Characters of the line before that part.
    #[serde(default)]
    pub cut: usize,
}

impl Diagnostic {
    /// A finding at `place` (or about an object that has none).
    #[must_use]
    pub fn new(severity: Severity, code: &str, place: Option<&Place>, message: String) -> Self {
        let out = Self {
            severity,
            code: code.to_owned(),
            file: String::new(),
            line: 0,
            column: 0,
            length: 0,
            message,
            expected: None,
            help: None,
            source: String::new(),
            cut: 0,
        };
        match place {
            Some(place) => out.placed(place),
            None => out,
        }
    }

    pub(crate) fn placed(mut self, place: &Place) -> Self {
        place.file.as_ref().clone_into(&mut self.file);
        place.source.as_ref().clone_into(&mut self.source);
        self.line = place.line;
        self.column = place.column;
        self.length = place.length;
        self
    }

    pub(crate) fn error(code: &str, place: &Place, message: impl Into<String>) -> Box<Self> {
        Box::new(Self::new(Severity::Error, code, Some(place), message.into()))
    }

    pub(crate) fn expecting(mut self: Box<Self>, expected: impl Into<String>) -> Box<Self> {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn helping(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn suggesting(mut self: Box<Self>, name: Option<&str>) -> Box<Self> {
        if let Some(name) = name {
            self.help = Some(format!("did you mean `{name}`?"));
        }
        self
    }

    /// True when the text is refused because of this.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding as shown to people: message, place, the line with a caret, help. Ends with a line feed.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = format!("{}[{}]: {}\n", self.severity, self.code, self.message);
        let number = self.line.to_string();
        let pad = " ".repeat(number.len());
        if self.line > 0 {
            let _ = writeln!(out, "{pad}--> {}:{}:{}", self.file, self.line, self.column);
            let _ = writeln!(out, "{pad} |");
            let _ = writeln!(out, "{number} | {}", self.source);
            let lead: String = self
                .source
                .chars()
                .take(self.column.saturating_sub(1).saturating_sub(self.cut))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = writeln!(out, "{pad} | {lead}{}", "^".repeat(self.length.max(1)));
        }
        if let Some(expected) = &self.expected {
            let _ = writeln!(out, "{pad} = expected: {expected}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(out, "{pad} = help: {help}");
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:col: error[CODE]: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        write!(f, "{}[{}]: {}", self.severity, self.code, self.message)?;
        if let Some(help) = &self.help {
            write!(f, " ({help})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Where the parts of a CIB stand in the texts that they came from.
///
/// Keys are `OBJECT` and `OBJECT/part`: an object is a resource's or constraint's id, `node:NAME`, `volume:NAME` or `property:`,
/// `rsc_defaults:`, `op_defaults:`; parts are `agent`, `params/NAME`, `meta/NAME`, `op/INDEX/NAME`, `ref/NAME`, `attributes/NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<String, Place>);

impl Spans {
    /// No places.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the place of a part; the first one of a key stays.
    pub fn note(&mut self, key: String, place: Place) {
        self.0.entry(key).or_insert(place);
    }

    /// Forgets an object and its parts.
    pub fn forget(&mut self, object: &str) {
        let prefix = format!("{object}/");
        self.0.retain(|key, _| key != object && !key.starts_with(&prefix));
    }

    /// Gives an object's places to another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let prefix = format!("{from}/");
        let old = std::mem::take(&mut self.0);
        for (key, place) in old {
            let key = match key.strip_prefix(&prefix) {
                Some(part) => format!("{to}/{part}"),
                None if key == from => to.to_owned(),
                None => key,
            };
            self.0.insert(key, place);
        }
    }

    /// The place of an object's part, or of the object.
    #[must_use]
    pub fn find(&self, object: &str, part: &str) -> Option<&Place> {
        self.0.get(&format!("{object}/{part}")).or_else(|| self.0.get(object))
    }
}
