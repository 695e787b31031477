//! Worldly: everything that runs for a resource. The one package that starts processes for them.

pub mod catalog;
pub mod exec;
mod executor;
pub mod native;
pub mod shim;
mod sys;

pub use executor::{Executor, ExecutorConfig, SetUpError};
