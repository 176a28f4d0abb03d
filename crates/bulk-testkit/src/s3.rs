//! An S3 and HTTP server on loopback, with faults on request.
//!
//! [`Server`] speaks the real protocol over HTTP/1.1, so clients are tested through their own sockets and parsers.
//! Its buckets are [`Store`]s: objects in memory, objects that are only described ([`Object::zeros`],
//! [`Object::repeating`], [`Object::made_up`], [`Object::generated`]: a hundred gigabytes cost nothing), a folder served
//! live, or a [`KeySpace`], whose keys are only described, too: sixty million cost nothing. A [`Rule`] says which requests
//! suffer which [`Fault`], a [`Quirk`] what a server always does otherwise than S3; [`Server::requests`] tells what was
//! asked and what was sent, and [`Server::counts`] how much.
//!
//! Buckets are addressed path-style, `http://127.0.0.1:PORT/bucket/key`, and anonymously unless
//! [`Builder::credentials`] is given. Spoken are ListObjectsV2, ListObjects, ListObjectVersions, HEAD, GET (one range,
//! `If-Match`, `If-None-Match`, `If-Range`, `versionId`), and, where the server is [writable](Builder::writable), PUT and
//! DELETE of whole objects and multipart uploads: created, fed with parts or with ranges of other objects, listed,
//! completed and aborted. Metadata (`x-amz-meta-…`) is kept with objects in memory. Everything else is answered with `501 NotImplemented`, never with a wrong guess.
//!
//! ```
//! use bulk_testkit::s3::{Fault, Rule, Server, Store};
//!
//! let server = Server::builder().bucket("data", Store::memory().with("a.csv", "id\n1\n")).start()?;
//! let slow_down = server.fault(Rule::new(Fault::slow_down()).key("a.csv").first(2));
//! assert_eq!(server.object_url("data", "a.csv"), format!("{}/data/a.csv", server.url()));
//! assert_eq!(slow_down.hits(), 0);
//! # Ok::<(), bulk_testkit::s3::Error>(())
//! ```

mod answer;
mod body;
mod checksum;
mod chunk;
mod error;
mod fault;
mod folder;
mod handler;
mod key_space;
mod listing;
mod made_up;
mod multipart;
mod object;
mod quirk;
mod range;
mod record;
mod server;
mod sigv4;
mod store;
mod target;
mod upload;
mod xml;

pub use checksum::Checksum;
pub use error::Error;
pub use fault::{Fault, FaultHandle, Rule};
pub use key_space::{EditionChanges, KeySpace, Layout, MadeUpObject};
pub use made_up::made_up;
pub use object::Object;
pub use quirk::Quirk;
pub use record::{Counts, RequestRecord};
pub use server::{Builder, Server};
pub use store::{EtagStyle, Store};
