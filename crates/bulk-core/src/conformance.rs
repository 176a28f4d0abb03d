//! Checks that a [`Source`] does what its methods promise, for the tests of whoever implements one.
//!
//! Store the objects of a [`Conformance`] where the source finds them, and run it:
//!
//! ```
//! use std::sync::Arc;
//! use bulk_core::FileSource;
//! use bulk_core::conformance::Conformance;
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let conformance = Conformance::default();
//! let folder = tempfile::tempdir().unwrap();
//! for (key, bytes) in &conformance.objects {
//!     let path = folder.path().join(key);
//!     std::fs::create_dir_all(path.parent().unwrap()).unwrap();
//!     std::fs::write(path, bytes).unwrap();
//! }
//! conformance.check(Arc::new(FileSource::new(folder.path()))).await.unwrap();
//! # });
//! ```

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::counted::counted;
use crate::{Body, Digest, ETag, Error, Get, Source};

/// Requests that are open at once in the check of concurrency.
const CONCURRENCY: usize = 32;

/// What a source must hold, and what it must keep to itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conformance {
    /// Keys and bytes. A check that needs an empty object, or one of some length, is left out where there is none.
    ///
    /// Default: an empty object, one of a byte, one of 26 bytes, one of 1.2 million, and small ones under keys with
    /// folders, spaces, `+`, `%`, `&`, `#`, `?` and letters beyond ASCII. Leave out what the source cannot have.
    pub objects: Vec<(String, Bytes)>,
    /// A key under which there is nothing. Default `conformance/there is nothing here`.
    pub missing: String,
    /// Texts that must not stand in a location or a message: passwords, tokens, signatures. Default none.
    pub secrets: Vec<String>,
}

impl Default for Conformance {
    fn default() -> Self {
        let mut random = 1_u32;
        let large: Vec<u8> = (0..1_200_000)
            .map(|_| {
                // Numerical Recipes' generator: no period shorter than the object.
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 24) as u8
            })
            .collect();
        let mut objects: Vec<(String, Bytes)> = vec![
            ("conformance/empty".into(), Bytes::new()),
            ("conformance/byte".into(), Bytes::from_static(b"x")),
            ("conformance/letters".into(), Bytes::from_static(b"abcdefghijklmnopqrstuvwxyz")),
            ("conformance/large.bin".into(), large.into()),
        ];
        let odd =
            ["deep/er/still", "a b", " a ", "a+b", "100%", "a%2Fb", "a&b=c;d", "a#b", "a?b=c", "(a)'!*~@:$,", "é漢😀"];
        objects.extend(odd.map(|name| (format!("conformance/{name}"), format!("this is {name}").into())));
        Self { objects, missing: "conformance/there is nothing here".into(), secrets: Vec::new() }
    }
}

/// What a source did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check} of {key:?}: {what}")]
#[non_exhaustive]
pub struct Violation {
    /// What was tried.
    pub check: &'static str,
    /// On which key.
    pub key: String,
    /// What came of it.
    pub what: String,
}

impl Conformance {
    /// Runs all checks, and stops at the first that fails. Nothing is retried, so the source must work at once.
    ///
    /// A source without ranges passes if it says so ([`Body::has_ranges`]) and sends the whole object.
    ///
    /// # Errors
    ///
    /// The [`Violation`] found.
    pub async fn check(&self, source: Arc<dyn Source>) -> Result<(), Violation> {
        let (mut locations, mut identities) = (HashSet::new(), HashSet::new());
        for (key, bytes) in &self.objects {
            let case = Case { source: &*source, secrets: &self.secrets, key, bytes };
            if !locations.insert(case.location("location")?) {
                return Err(case.violation("location", "another object has the same".to_owned()));
            }
            if !identities.insert(case.identity()?) {
                return Err(case.violation("identity", "another object has the same".to_owned()));
            }
            case.whole().await?;
            case.ranges().await?;
            case.versions().await?;
            case.digests().await?;
        }
        let case = Case { source: &*source, secrets: &self.secrets, key: &self.missing, bytes: &Bytes::new() };
        case.missing().await?;
        self.early_drop(&*source).await?;
        self.concurrency(&*source).await
    }

    /// A body that is dropped early leaves the source usable.
    async fn early_drop(&self, source: &dyn Source) -> Result<(), Violation> {
        let longest = self.objects.iter().max_by_key(|(_, bytes)| bytes.len());
        let Some((key, bytes)) = longest.filter(|(_, bytes)| !bytes.is_empty()) else { return Ok(()) };
        let case = Case { source, secrets: &self.secrets, key, bytes };
        for _ in 0..8 {
            drop(case.open("drop before the first byte", &Get::new(key)).await?);
            let mut body = case.open("drop after the first bytes", &Get::new(key)).await?;
            match body.bytes.next().await {
                Some(Ok(chunk)) if bytes.starts_with(&chunk) => {}
                Some(Err(error)) => return Err(case.violation("drop after the first bytes", shown(&error))),
                _ => return Err(case.violation("drop after the first bytes", "they are wrong".to_owned())),
            }
        }
        case.bytes_of("get after dropped bodies", &Get::new(key)).await.map(drop)
    }

    /// Many requests at once, to all objects and to many places of each.
    async fn concurrency(&self, source: &dyn Source) -> Result<(), Violation> {
        let gets = self.objects.iter().flat_map(|(key, bytes)| {
            let size = bytes.len() as u64;
            (0..8).map(move |eighth| {
                let mut get = Get::new(key);
                get.start = (size * eighth / 8).min(size.saturating_sub(1));
                get.end = Some((size * (eighth + 1) / 8).max(get.start + 1));
                let case = Case { source, secrets: &self.secrets, key, bytes };
                async move { case.bytes_of("one of many gets at once", &get).await }
            })
        });
        let gets: Vec<_> = gets.collect();
        futures::stream::iter(gets).buffer_unordered(CONCURRENCY).try_for_each(|_| async { Ok(()) }).await
    }
}

/// What an answer says of an object beside its bytes. It must be the same in all answers.
#[derive(Debug, PartialEq)]
struct Properties {
    size: Option<u64>,
    etag: Option<ETag>,
    last_modified: Option<jiff::Timestamp>,
}

impl Properties {
    fn of(body: &Body) -> Self {
        Self { size: body.size, etag: body.etag.clone(), last_modified: body.last_modified }
    }
}

#[derive(Clone, Copy)]
struct Case<'a> {
    source: &'a dyn Source,
    secrets: &'a [String],
    key: &'a str,
    bytes: &'a Bytes,
}

impl Case<'_> {
    fn violation(&self, check: &'static str, what: String) -> Violation {
        Violation { check, key: self.key.to_owned(), what }
    }

    fn require(&self, check: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
        if holds { Ok(()) } else { Err(self.violation(check, what())) }
    }

    fn discreet(&self, check: &'static str, text: &str) -> Result<(), Violation> {
        let is_discreet = !self.secrets.iter().any(|secret| text.contains(secret.as_str()));
        self.require(check, is_discreet, || "it shows a secret".to_owned())
    }

    fn location(&self, check: &'static str) -> Result<String, Violation> {
        let location = self.source.location(self.key);
        self.discreet(check, &location)?;
        self.require(check, !location.is_empty(), || "it is empty".to_owned())?;
        Ok(location)
    }

    fn identity(&self) -> Result<String, Violation> {
        let identity = self.source.identity(self.key);
        self.discreet("identity", &identity)?;
        self.require("identity", !identity.is_empty(), || "it is empty".to_owned())?;
        let what = || "it is another one each time".to_owned();
        self.require("identity", identity == self.source.identity(self.key), what)?;
        Ok(identity)
    }

    /// That these are digests of the object's bytes.
    fn are_right(&self, check: &'static str, digests: &[Digest]) -> Result<(), Violation> {
        digests.iter().try_for_each(|stated| {
            let found = Digest::of(stated.algorithm(), self.bytes);
            self.require(check, *stated == found, || format!("{stated:?} is stated, the bytes have {found:?}"))
        })
    }

    async fn open(&self, check: &'static str, get: &Get) -> Result<Body, Violation> {
        self.source.get(get).await.map_err(|error| self.violation(check, shown(&error)))
    }

    /// Sends `get`, which must fail.
    async fn refused(&self, check: &'static str, get: &Get) -> Result<Error, Violation> {
        match self.source.get(get).await {
            Ok(body) => Err(self.violation(check, format!("{get:?} gave a body from {}", body.start))),
            Err(error) => {
                self.discreet(check, &format!("{} {error:?}", shown(&error)))?;
                Ok(error)
            }
        }
    }

    /// Sends `get`, which must give the bytes that it asks for, and nothing but the truth about them.
    async fn bytes_of(&self, check: &'static str, get: &Get) -> Result<Body, Violation> {
        let mut body = self.open(check, get).await?;
        let size = self.bytes.len() as u64;
        let is_range = get.start > 0 || get.end.is_some();
        let (start, end) = match is_range && body.has_ranges {
            true => (get.start, get.end.map_or(size, |end| end.min(size))),
            false => (0, size),
        };
        let told = format!("start {}, end {:?}, size {:?} for {get:?}", body.start, body.end, body.size);
        self.require(check, body.start == start, || told.clone())?;
        self.require(check, body.end.is_none_or(|told| told == end), || told.clone())?;
        self.require(check, body.size.is_none_or(|told| told == size), || told.clone())?;
        let bytes = std::mem::replace(&mut body.bytes, futures::stream::empty().boxed());
        let bytes = bytes.try_collect::<Vec<_>>().await.map_err(|error| self.violation(check, shown(&error)))?.concat();
        let expected = &self.bytes[start as usize..end as usize];
        let what = || {
            format!("{} came, not the {} from {start} to {end}", counted(bytes.len(), "byte", "bytes"), expected.len())
        };
        self.require(check, bytes == expected, what)?;
        Ok(body)
    }

    async fn whole(&self) -> Result<(), Violation> {
        let first = self.bytes_of("whole", &Get::new(self.key)).await?;
        let second = self.bytes_of("whole, again", &Get::new(self.key)).await?;
        let (properties, again) = (Properties::of(&first), Properties::of(&second));
        self.require("whole, again", properties == again, || format!("first {properties:?}, then {again:?}"))?;
        let what = || format!("first {:?}, then {:?}", first.digests, second.digests);
        self.require("whole, again", first.digests == second.digests, what)?;
        self.are_right("digests beside the bytes", &first.digests)
    }

    async fn ranges(&self) -> Result<(), Violation> {
        let properties = Properties::of(&self.open("properties", &Get::new(self.key)).await?);
        let size = self.bytes.len() as u64;
        let last = size.saturating_sub(1);
        let mut ranges = vec![
            ("all of it as a range", 0, Some(size.max(1))),
            ("end behind the object's end", 0, Some(size + 10)),
            ("end far behind the object's end", 0, Some(i64::MAX as u64)),
        ];
        if size > 0 {
            ranges.extend([("first byte", 0, Some(1)), ("last byte", last, Some(size))]);
        }
        if size > 1 {
            ranges.extend([
                ("start alone", size / 2, None),
                ("last byte, by its start alone", last, None),
                ("start, and end behind the object's end", last, Some(size + 10)),
            ]);
        }
        if size > 2 {
            ranges.extend([("single byte", size / 2, Some(size / 2 + 1)), ("start and end", size / 3, Some(last))]);
        }
        for (check, start, end) in ranges {
            let mut get = Get::new(self.key);
            (get.start, get.end) = (start, end);
            let body = self.bytes_of(check, &get).await?;
            let found = Properties::of(&body);
            let is_same = found.etag == properties.etag
                && found.last_modified == properties.last_modified
                && (found.size.is_none() || properties.size.is_none() || found.size == properties.size);
            // What a server says of no object at all says little of an empty one.
            self.require(check, is_same || size == 0, || format!("{properties:?} of the whole, {found:?} of {get:?}"))?;
            let (told, whole) = (&body.digests, &self.open(check, &Get::new(self.key)).await?.digests);
            let what = || format!("digests {told:?}, of the whole {whole:?}");
            self.require(check, told.iter().all(|digest| whole.contains(digest)), what)?;
        }
        for (start, end) in
            [(size.max(1), None), (size + 1, None), (size + 10, Some(size + 20)), (size + (1 << 40), None)]
        {
            let mut get = Get::new(self.key);
            (get.start, get.end) = (start, end);
            let check = "start at or behind the object's end";
            match self.source.get(&get).await {
                Err(Error::Changed { .. }) => {}
                Err(error) => return Err(self.violation(check, format!("{get:?} failed: {}", shown(&error)))),
                Ok(body) if !body.has_ranges && body.start == 0 => {}
                Ok(body) => return Err(self.violation(check, format!("{get:?} gave a body from {}", body.start))),
            }
        }
        Ok(())
    }

    async fn versions(&self) -> Result<(), Violation> {
        let check = "if_match with another tag";
        let mut get = Get::new(self.key);
        get.if_match = Some(ETag::new("no-version-has-this-tag"));
        let ends = if self.bytes.len() > 1 { [(0, None), (0, Some(1)), (1, None)].as_slice() } else { &[(0, None)] };
        for (start, end) in ends {
            (get.start, get.end) = (*start, *end);
            let error = self.refused(check, &get).await?;
            let is_changed = matches!(error, Error::Changed { .. });
            self.require(check, is_changed, || format!("it failed otherwise: {}", shown(&error)))?;
        }
        let Some(etag) = self.open("properties", &Get::new(self.key)).await?.etag else { return Ok(()) };
        get.if_match = Some(etag);
        for (start, end) in ends {
            (get.start, get.end) = (*start, *end);
            let body = self.bytes_of("if_match with the object's tag", &get).await?;
            self.require("if_match with the object's tag", body.etag == get.if_match, || format!("{:?}", body.etag))?;
        }
        Ok(())
    }

    async fn digests(&self) -> Result<(), Violation> {
        let etag = self.open("properties", &Get::new(self.key)).await?.etag;
        for if_match in [None, etag.as_ref()] {
            let stated = self.source.digests(self.key, if_match).await;
            let stated = stated.map_err(|error| self.violation("digests", shown(&error)))?;
            self.are_right("digests", &stated)?;
        }
        let check = "digests with another tag";
        match self.source.digests(self.key, Some(&ETag::new("no-version-has-this-tag"))).await {
            Ok(stated) => {
                self.require(check, stated.is_empty(), || format!("{stated:?} of a version that is not there"))
            }
            Err(Error::Changed { .. }) => Ok(()),
            Err(error) => Err(self.violation(check, format!("it failed otherwise: {}", shown(&error)))),
        }
    }

    async fn missing(&self) -> Result<(), Violation> {
        let check = "get of a missing object";
        self.location(check)?;
        let mut gets = vec![Get::new(self.key), Get::new(self.key), Get::new(self.key)];
        (gets[1].start, gets[1].end) = (5, Some(10));
        gets[2].if_match = Some(ETag::new("no-version-has-this-tag"));
        for get in gets {
            let error = self.refused(check, &get).await?;
            let is_right = match error {
                Error::NotFound { .. } => true,
                // No object has that tag, one that is not there neither (RFC 9110, section 13.1.1).
                Error::Changed { .. } => get.if_match.is_some(),
                _ => false,
            };
            self.require(check, is_right, || format!("it failed otherwise: {}", shown(&error)))?;
        }
        let check = "digests of a missing object";
        match self.source.digests(self.key, None).await {
            Ok(stated) => self.require(check, stated.is_empty(), || format!("{stated:?}")),
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.violation(check, format!("it failed otherwise: {}", shown(&error)))),
        }
    }
}

/// The error and what caused it.
fn shown(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
