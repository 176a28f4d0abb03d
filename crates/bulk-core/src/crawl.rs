//! Requests to an API for each record of an input, at the rate that it permits (feature `crawl`).
//!
//! A [`Crawler`] makes requests of records by a [`RequestTemplate`], under a [`Limiter`](crate::Limiter), and gives what
//! came of each call as a [`Crawled`], with the records that it was made of; a call with very many pages comes in several. A
//! [`Success`] says which answers are one; a [`Batch`] asks for several records at once, a [`Pagination`] follows pages, and
//! a [`Watermark`] remembers from when on the next run is to ask. What fails for good is [`Quarantined`], with its request
//! and answer, without their secrets.
//!
//! ```
//! use bulk_core::crawl::{Crawler, RequestTemplate};
//! use bulk_core::{HttpClient, Limiter, LimiterOptions};
//! # use bulk_testkit::api::{Answer, Server};
//! use futures::StreamExt;
//! use serde_json::json;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let server = Server::builder(|asked| Answer::json(json!({"code": 1, "of": asked.path}))).start()?;
//! # let base = server.url();
//! let mut options = LimiterOptions::default();
//! options.limits = vec!["25/s over 10s".parse()?];
//! let template = RequestTemplate::get("{$base}/characters/{id}")?
//!     .value("base", &base)
//!     .header("x-api-key", "{$key}")?
//!     .secret("key", "4711");
//! let mut crawler = Crawler::new(HttpClient::new()?, Limiter::new(options), template);
//! crawler.success.rules = vec!["$.code == 1".parse()?];
//!
//! let records = [json!({"id": 7, "name": "first"}), json!({"id": 8, "name": "second"})];
//! let mut calls = crawler.crawl(futures::stream::iter(records))?;
//! while let Some(call) = calls.next().await {
//!     for record in call.records {
//!         let pages = record.outcome.map_err(|failure| failure.error)?;
//!         assert_eq!(pages[0]["of"], format!("/characters/{}", record.input["id"]));
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod batch;
mod call;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod meter;
mod pagination;
mod part;
mod room;
mod rule;
mod success;
mod template;
mod watermark;

pub use self::batch::Batch;
pub use self::call::{Crawled, CrawledRecord, Quarantined};
pub use self::engine::{Crawl, CrawlOptions, CrawlOrder, Crawler, Done, Progress};
pub use self::pagination::Pagination;
pub use self::rule::{Rule, SpecError};
pub use self::success::Success;
pub use self::template::RequestTemplate;
pub use self::watermark::Watermark;
