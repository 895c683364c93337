//! The one integration binary: real servers, real files.

mod mail;
mod smtp;
