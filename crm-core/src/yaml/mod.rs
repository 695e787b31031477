//! The CIB as YAML, for people and for git: nothing is lost between it and the configure text.

mod raw;
mod read;
mod tree;
mod write;

#[cfg(test)]
mod tests;

pub use read::{from_yaml, read};
pub use write::to_yaml;
