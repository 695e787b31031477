//! The words between processes: gRPC between nodes (`pb`), JSON lines on local sockets (`local`, `block`). Worldly only in its socket helper.

pub mod block;
#[cfg(test)]
mod decoders;
pub mod line;
pub mod local;
pub mod peer;
pub mod role;

/// Generated from `proto/crm.proto`.
#[expect(
    missing_docs,
    clippy::clone_on_ref_ptr,
    clippy::too_many_lines,
    clippy::doc_markdown,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    unused_qualifications,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("crm.v1");
}
