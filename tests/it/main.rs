//! The integration tests: one binary, real servers. `./test` installs what they need.

mod arrows;
mod bench;
mod certificates;
mod contract;
mod crash;
mod daemon;
mod golden;
mod inspection;
mod leaks;
mod mail;
mod mail_tls;
mod operate;
mod patterns;
mod pg;
mod pin_space;
mod pin_table;
mod properties;
mod random_policies;
mod sandbox;
mod site;
mod small_site;
mod smtp;
mod spine;
mod tls_postgres;
mod traffic;
