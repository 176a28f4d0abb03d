//! What the pages of `docs/` work with, on loopback: a database, buckets and an API, with something in them.

use std::time::Duration;

use bulk_testkit::api::{self, Answer, bungie};
use bulk_testkit::s3::{self, Store};
use serde_json::json;

use crate::exit::{Exit, Failure};

/// What `bulk sync` is shown with: a document for each build, among other files.
const BUILDS: &str = "builds";
/// What `bulk export --to` is shown with: empty.
const ARCHIVES: &str = "archives";

const VERSIONS: std::ops::Range<u32> = 60..120;
const PLATFORMS: [&str; 5] = ["linux-x86_64", "linux-i686", "macosx64", "win32", "win64"];

/// The key that the API wants.
const API_KEY: &str = "demo";
/// What it allows: 25 requests a second over any ten seconds.
const API_LIMIT: (usize, Duration) = (250, Duration::from_secs(10));
/// Statistics that it has of a character.
const STATISTICS: usize = 33;

/// The servers, which end when it is dropped.
pub(super) struct Playground {
    pub(super) buckets: s3::Server,
    pub(super) api: api::Server,
}

impl Playground {
    /// Serves this bucket and two of its own, all of which can be written to, and an API.
    pub(super) fn start(bucket: &str, store: Store) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, anyhow::anyhow!("{error}"));
        let buckets = s3::Server::builder()
            .bucket(bucket, store)
            .bucket(BUILDS, builds())
            .bucket(ARCHIVES, Store::memory())
            .writable(true)
            .keep_requests(0)
            .start()
            .map_err(|error| failed(&error))?;
        let game = bungie(API_KEY, |_| STATISTICS);
        let api = api::Server::builder(move |asked| match asked.segments().first().map(String::as_str) {
            Some("Platform") => game(asked),
            _ => Answer::error(404, "there is only /Platform/Destiny2/…"),
        });
        let api = api.limit(API_LIMIT.0, API_LIMIT.1).start().map_err(|error| failed(&error))?;
        Ok(Self { buckets, api })
    }

    /// Where all of it is, as lines for a shell.
    pub(super) fn lines(&self, db: &str) -> String {
        let variables = [("BULK_DB", db), ("BULK_ENDPOINT", &self.buckets.url()), ("API", &self.api.url())];
        variables.map(|(name, value)| format!("export {name}='{}'", value.replace('\'', r"'\''"))).join("\n")
    }
}

/// Builds as Buildhub knows them, each with the other files of its folder.
fn builds() -> Store {
    let mut store = Store::memory();
    for version in VERSIONS {
        for (place, platform) in PLATFORMS.iter().enumerate() {
            let folder = format!("firefox/candidates/{version}.0-candidates/build1/{platform}/en-US");
            let document = json!({
                "source": {"product": "firefox", "tree": "releases/mozilla-release"},
                "target": {"version": format!("{version}.0"), "platform": platform, "locale": "en-US"},
                "download": {
                    "url": format!("https://archive.example.org/{folder}/firefox-{version}.0.zip"),
                    "size": 50_000_000 + 1000 * u64::from(version) + place as u64,
                },
            });
            store = store.with(format!("{folder}/buildhub.json"), document.to_string());
            for name in ["zip", "checksums", "txt"] {
                store = store.with(format!("{folder}/firefox-{version}.0.{name}"), format!("{version}.0 {name}\n"));
            }
        }
    }
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_can_be_pasted_whatever_the_password() {
        let playground = Playground::start("data", Store::memory()).unwrap();
        let lines = playground.lines("postgresql://me:it's@host/db");
        let lines: Vec<_> = lines.lines().collect();
        assert_eq!(lines[0], r"export BULK_DB='postgresql://me:it'\''s@host/db'");
        assert_eq!(lines[1], format!("export BULK_ENDPOINT='{}'", playground.buckets.url()));
        assert_eq!(lines[2], format!("export API='{}'", playground.api.url()));
        assert_eq!(lines.len(), 3);
    }
}
