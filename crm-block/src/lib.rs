//! Worldly: the data-plane daemon `crm-blockd`: disks, sockets, the block device that users mount.

pub mod aligned;
pub mod front;
pub mod keeper;
