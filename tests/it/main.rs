//! The integration tests: one binary, real servers. `./test` installs what they need.

mod arrows;
mod bench;
mod brakes;
mod certificates;
mod contract;
mod crash;
mod daemon;
mod golden;
mod inspection;
mod leaks;
mod mail;
mod mail_tls;
mod pg;
mod properties;
mod random_site;
mod sandbox;
mod site;
mod smtp;
mod spine;
mod tls_postgres;
mod traffic;
