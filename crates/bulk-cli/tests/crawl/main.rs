//! `bulk crawl`, from a loopback API that counts its requests into a real PostgreSQL.

mod bench;
mod input;
mod lists;
mod rounds;
mod specs;
#[path = "../support/mod.rs"]
mod support;
mod told;
