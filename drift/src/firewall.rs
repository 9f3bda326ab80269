//! What the kernel's packet filter nf_tables is told to do, decoded from netlink.

pub mod attribute;
