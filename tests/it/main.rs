//! The integration tests: one binary, real servers. `./test` installs what they need. The servers and the site serve other test programs too,
//! which use more of them.

mod arrows;
mod bench;
mod bounded;
mod brakes;
mod cac_pair;
mod certificates;
mod cipher_command;
mod codes;
mod contract;
mod crash;
mod credentials;
mod daemon;
mod digest;
mod encrypted;
mod failover;
mod golden;
mod inspection;
mod languages;
mod late_mail;
mod leaks;
mod log_files;
mod log_server;
mod mail;
mod mail_oauth;
mod mail_tls;
mod mistakes;
mod old_tool;
mod operate;
mod patterns;
#[allow(dead_code)]
mod pg;
mod pin_space;
mod pin_table;
mod places;
mod properties;
mod random_policies;
#[cfg(unix)]
mod reload;
mod reminders;
mod requests;
mod resend;
mod restored;
mod sandbox;
mod second_host;
mod secrets;
mod sessions;
#[allow(dead_code)]
mod site;
mod six_policies;
mod small_site;
#[allow(dead_code)]
mod smtp;
mod spine;
#[cfg(unix)]
mod stopping;
mod take_back;
mod takeover;
mod tenants;
mod tls_postgres;
mod token_endpoint;
mod traffic;
mod tripwires;
mod undo;
