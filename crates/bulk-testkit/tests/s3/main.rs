//! The loopback S3 server, read by clients that we did not write.

mod faults;
mod folders;
mod listing;
mod objects;
mod server;
mod support;
mod uploads;
