//! The difference of two CIBs, object by object, in the words of the configure text.

use crate::cib::Cib;
use crate::text::objects;
use std::collections::BTreeMap;
use std::fmt;

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added {
        /// Its name.
        object: String,
        /// Its statement.
        text: String,
    },
    /// It is another than before.
    Changed {
        /// Its name.
        object: String,
        /// Its old statement.
        from: String,
        /// Its new statement.
        to: String,
    },
    /// It is gone.
    Removed {
        /// Its name.
        object: String,
        /// Its old statement.
        text: String,
    },
}

impl Change {
    /// The name of the object.
    #[must_use]
    pub fn object(&self) -> &str {
        match self {
            Self::Added { object, .. }
            | Self::Changed { object, .. }
            | Self::Removed { object, .. } => object,
        }
    }
}

/// A statement's parts: its first line and each section or pair, in order.
fn parts(text: &str) -> Vec<&str> {
    text.split(" \\\n\t").collect()
}

fn one_line(text: &str) -> String {
    parts(text).join(" ")
}

impl fmt::Display for Change {
    /// `+ primitive ...`, `- primitive ...`, or `~ primitive ID` with the parts that differ on lines of their own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { text, .. } => write!(f, "+ {}", one_line(text)),
            Self::Removed { text, .. } => write!(f, "- {}", one_line(text)),
            Self::Changed { from, to, .. } => {
                let (old, new) = (parts(from), parts(to));
                let mut head = new.first().copied().unwrap_or_default();
                if old.first() != new.first() {
                    // The first line itself differs: name the object, show both.
                    head = head.split(' ').next().unwrap_or_default();
                    write!(f, "~ {head} {}", self.object())?;
                } else {
                    write!(f, "~ {head}")?;
                }
                for part in old.iter().filter(|p| !new.contains(p)) {
                    write!(f, "\n    - {part}")?;
                }
                for part in new.iter().filter(|p| !old.contains(p)) {
                    write!(f, "\n    + {part}")?;
                }
                Ok(())
            }
        }
    }
}

/// What must change to get from `old` to `new`, in the order in which objects are shown; removals last. Empty when the configurations
/// say the same, whatever order their objects are in.
#[must_use]
pub fn diff(old: &Cib, new: &Cib) -> Vec<Change> {
    let key = |(name, text): (String, String)| {
        let kind = text.split(' ').next().unwrap_or_default().to_owned();
        ((kind, name), text)
    };
    let before: BTreeMap<(String, String), String> = objects(old).into_iter().map(key).collect();
    let mut gone = before.clone();
    let mut out = Vec::new();
    for (key, text) in objects(new).into_iter().map(key) {
        gone.remove(&key);
        let object = key.1.clone();
        match before.get(&key) {
            None => out.push(Change::Added { object, text }),
            Some(from) if *from != text => {
                out.push(Change::Changed { object, from: from.clone(), to: text });
            }
            Some(_) => {}
        }
    }
    out.extend(gone.into_iter().map(|((_, object), text)| Change::Removed { object, text }));
    out
}

/// The changes as shown to people, one paragraph each; empty without changes.
#[must_use]
pub fn render(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{diff, render};
    use crate::cib::Cib;
    use crate::text::{Session, read};

    fn cib(text: &str) -> Cib {
        let mut session = Session::new(Cib::default(), 1);
        read("t", text, &mut session).unwrap();
        session.cib().clone()
    }

    #[test]
    fn objects_are_added_changed_and_removed() {
        let old = cib("primitive a Dummy params x=1 op monitor interval=5\nprimitive b Dummy\n");
        let new = cib("primitive a Dummy params x=2 op monitor interval=5\nprimitive c Dummy\n");
        assert_eq!(
            render(&diff(&old, &new)),
            "~ primitive a Dummy\n    - params x=1\n    + params x=2\n+ primitive c Dummy\n- primitive b Dummy\n"
        );
        assert!(diff(&old, &old).is_empty());
    }

    #[test]
    fn the_order_of_objects_is_no_difference() {
        let old = cib("primitive a Dummy\nprimitive b Dummy\n");
        let new = cib("primitive b Dummy\nprimitive a Dummy\n");
        assert!(diff(&old, &new).is_empty());
    }
}
