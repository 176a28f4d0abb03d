//! Archives that are written, spliced, verified and read back.

mod damage;
mod history;
mod support;
mod written;
