//! The integration tests: one binary, real servers. `./test` installs what they need.

mod arrows;
mod crash;
mod daemon;
mod leaks;
mod mail;
mod pg;
mod site;
mod smtp;
mod spine;
