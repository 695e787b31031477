//! The words between processes: gRPC between nodes (`pb`), JSON lines on local sockets (`local`, `block`). Worldly only in its socket helper.

pub mod block;
pub mod line;
pub mod local;
pub mod peer;

/// Generated from `proto/crm.proto`.
#[expect(
    missing_docs,
    clippy::all,
    clippy::clone_on_ref_ptr,
    clippy::doc_markdown,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::use_self,
    clippy::missing_errors_doc,
    clippy::large_futures,
    clippy::str_to_string,
    unused_qualifications,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("crm.v1");
}
