//! A JSON API on loopback that counts its requests exactly, and refuses what exceeds its limits.
//!
//! [`Server`] answers as a closure says, [`Asked`] to [`Answer`], and records each [`Arrival`]. It enforces rolling windows
//! ([`Builder::limit`]), takes its time ([`Latency`]), and fails on request ([`Fault`]), by a seed, so that runs repeat. [`bungie()`] and
//! [`ArchivesSpace`] are closures that answer as these two APIs do; [`paged()`] gives lists in pages of all three kinds.
//!
//! ```
//! use bulk_testkit::api::{Answer, Server};
//!
//! let server = Server::builder(|asked| Answer::json(serde_json::json!({"path": asked.path}))).start()?;
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! assert_eq!(server.arrivals().len(), 0);
//! # Ok::<(), std::io::Error>(())
//! ```

mod archives_space;
mod bungie;
mod exchange;
mod latency;
mod paged;
mod server;

pub use archives_space::ArchivesSpace;
pub use bungie::{bungie, bungie_statistics};
pub use exchange::{Answer, Asked};
pub use latency::Latency;
pub use paged::paged;
pub use server::{Arrival, Builder, Fault, Server, worst_window};
