//! The one integration binary.

mod bench;
mod contract;
mod inspection;
#[cfg(unix)]
mod pg;
mod sandbox;
#[cfg(unix)]
mod traffic;
