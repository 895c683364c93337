//! The integration tests: one binary, real servers. `./test` installs what they need.

mod arrows;
mod bench;
mod contract;
mod crash;
mod daemon;
mod inspection;
mod leaks;
mod mail;
#[cfg(unix)]
mod pg;
mod sandbox;
mod site;
mod smtp;
mod spine;
#[cfg(unix)]
mod traffic;
