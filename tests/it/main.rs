//! The integration tests: one binary, real servers. `./test` installs what they need.

mod arrows;
mod bench;
mod certificates;
mod contract;
mod crash;
mod daemon;
mod encrypted;
mod golden;
mod inspection;
mod leaks;
mod mail;
mod mail_tls;
mod mistakes;
mod pg;
mod properties;
mod random_site;
mod sandbox;
mod sessions;
mod site;
mod smtp;
mod spine;
mod tls_postgres;
mod traffic;
