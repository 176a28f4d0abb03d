//! What the tests, benches and demo of `bulk` share: real parts, small enough to start in a test.
//!
//! Four nouns: [`s3::Server`] speaks the S3 protocol on loopback over a folder or an in-memory set, with faults on
//! request; [`api::Server`] answers in JSON, counts, and refuses what exceeds its limits; [`postgres::Server`] is a PostgreSQL that starts and stops with its owner; [`snapshot`] writes
//! CourtListener-shaped snapshots, deterministic by seed and scale.

pub mod api;
#[cfg(feature = "browser")]
pub mod browser;
mod loopback;
pub mod moto;
pub mod postgres;
pub mod pyarrow;
pub mod s3;
#[cfg(feature = "s3s")]
pub mod s3s;
pub mod snapshot;
#[cfg(feature = "tracing")]
pub mod spans;
#[cfg(feature = "tls")]
pub mod tls;
mod wire;

/// The program of the crate's page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
