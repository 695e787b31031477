//! `crm status`: what runs where. Pure renderings of the daemon's picture.

pub(crate) mod clock;
pub(crate) mod json;
pub(crate) mod picture;
pub(crate) mod text;

#[cfg(test)]
mod golden_test;
