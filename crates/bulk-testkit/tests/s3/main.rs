//! The loopback S3 server, read by clients that we did not write.

mod faults;
mod folders;
mod key_space;
mod listing;
mod objects;
mod pages;
mod quirks;
mod server;
mod support;
mod uploads;
mod versions;
