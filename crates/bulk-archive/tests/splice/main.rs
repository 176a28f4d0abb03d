//! Archives that are written, spliced, verified and read back.

mod damage;
mod golden;
mod history;
mod readers;
mod support;
mod written;
