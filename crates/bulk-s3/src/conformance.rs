//! Checks that a store of [`KnownObjects`] does what its methods promise, for the tests of whoever implements one.
//!
//! ```
//! use bulk_s3::MemoryKnown;
//! use bulk_s3::conformance::KnownConformance;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! KnownConformance::default().check(&MemoryKnown::new()).await.unwrap();
//! # });
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::task::Poll;

use futures::future::try_join_all;
use jiff::Timestamp;

use crate::counted::counted;
use crate::{Batch, Error, KeyRange, KnownChange, KnownObjects, ObjectRef};

/// What a store of known objects is to be tried with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KnownConformance {
    /// Keys. Default: some fifty that are odd, or that collations sort otherwise than by bytes. Leave out what the store
    /// cannot hold: that it refuses them is checked apart.
    pub keys: Vec<String>,
    /// Whether it keeps sizes. Default yes.
    pub keeps_sizes: bool,
    /// Whether it keeps times. Default yes.
    pub keeps_times: bool,
    /// Whether it keeps digests of contents. Default yes.
    pub keeps_contents: bool,
    /// Texts that must not stand in its identity or a message: passwords. Default none.
    pub secrets: Vec<String>,
    /// Random changes that it is to take, in batches of up to eight. Default 400.
    pub changes: usize,
}

impl Default for KnownConformance {
    fn default() -> Self {
        let keys = [
            "a",
            "a/",
            "a//b",
            "a/b",
            "a/./b",
            "a/../b",
            "a-b",
            "a_b",
            "a b",
            "a  b",
            "aB",
            "ab",
            "AB",
            "Ab",
            "a.b",
            "a+b",
            "a%b",
            "a%2Fb",
            "a&b",
            "a\\b",
            "a\"b",
            "a'b",
            "a'';--",
            "a$1b",
            "{a,b}",
            "\\N",
            "\\.",
            "%",
            "_",
            "/",
            "//",
            "/a",
            ".",
            "..",
            "./a",
            "../a",
            " ",
            " a",
            "a ",
            "\t",
            "a\nb",
            "a\r\nb",
            "\u{1}",
            "a\u{1f}b",
            "\u{7f}",
            "a\0b",
            "a\0",
            "\0",
            "Ä",
            "ä",
            "a\u{308}",
            "Z",
            "é",
            "ß",
            "漢",
            "\u{e000}",
            "\u{ffff}",
            "😀",
            "\u{10ffff}",
            "2",
            "10",
            "0010",
        ];
        let mut keys: Vec<String> = keys.map(str::to_owned).into();
        keys.push("x".repeat(1024));
        keys.push("x".repeat(1023));
        Self { keys, keeps_sizes: true, keeps_times: true, keeps_contents: true, secrets: Vec::new(), changes: 400 }
    }
}

/// A promise that the store does not keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{check}: {what}")]
#[non_exhaustive]
pub struct Violation {
    /// What was tried.
    pub check: &'static str,
    /// What came of it.
    pub what: String,
}

/// An object that owns its texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Object {
    etag: Option<String>,
    size: Option<u64>,
    last_modified: Option<Timestamp>,
    content: Option<[u8; 32]>,
}

impl Object {
    fn as_ref<'a>(&'a self, key: &'a str) -> ObjectRef<'a> {
        ObjectRef {
            key,
            etag: self.etag.as_deref(),
            size: self.size,
            last_modified: self.last_modified,
            content: self.content,
        }
    }
}

type Model = BTreeMap<String, Object>;

impl KnownConformance {
    /// Checks a store that is empty, and leaves it so.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] found.
    pub async fn check(&self, store: &dyn KnownObjects) -> Result<(), Violation> {
        let run = Run { conformance: self, store };
        run.identity()?;
        run.is("a store without objects", &Model::new()).await?;
        run.splits("a store without objects", &KeyRange::all()).await?;
        run.odd_keys().await?;
        run.values().await?;
        run.last_change().await?;
        run.unfit().await?;
        run.early_drop().await?;
        run.at_once().await?;
        run.random().await?;
        run.many().await
    }
}

struct Run<'a> {
    conformance: &'a KnownConformance,
    store: &'a dyn KnownObjects,
}

fn violation(check: &'static str, what: impl Into<String>) -> Violation {
    Violation { check, what: what.into() }
}

fn shown(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// A generator that is the same for ever (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

impl Run<'_> {
    /// What the store is to say of an object.
    fn kept(&self, object: &Object) -> Object {
        let KnownConformance { keeps_sizes, keeps_times, keeps_contents, .. } = *self.conformance;
        let time = object.last_modified.filter(|_| keeps_times);
        Object {
            etag: object.etag.clone(),
            size: object.size.filter(|_| keeps_sizes),
            last_modified: time.and_then(|time| Timestamp::from_microsecond(time.as_microsecond()).ok()),
            content: object.content.filter(|_| keeps_contents),
        }
    }

    fn told(&self, check: &'static str, error: &Error) -> Result<String, Violation> {
        let text = format!("{} {error:?}", shown(error));
        match self.conformance.secrets.iter().any(|secret| text.contains(secret)) {
            true => Err(violation(check, "an error shows a secret")),
            false => Ok(shown(error)),
        }
    }

    async fn scan(&self, check: &'static str, range: &KeyRange, limit: usize) -> Result<Batch, Violation> {
        match self.store.scan(range, limit).await {
            Ok(batch) => Ok(batch),
            Err(error) => Err(violation(check, format!("a scan of {range} failed: {}", self.told(check, &error)?))),
        }
    }

    async fn apply(&self, check: &'static str, changes: &[KnownChange<'_>]) -> Result<(), Violation> {
        match self.store.apply(changes).await {
            Ok(()) => Ok(()),
            Err(error) => Err(violation(check, format!("it refuses {changes:?}: {}", self.told(check, &error)?))),
        }
    }

    /// Makes changes, to the store and to the model.
    async fn change(
        &self,
        check: &'static str,
        model: &mut Model,
        changes: &[(String, Option<Object>)],
    ) -> Result<(), Violation> {
        let given: Vec<_> = changes
            .iter()
            .map(|(key, object)| match object {
                Some(object) => KnownChange::Set(object.as_ref(key)),
                None => KnownChange::Remove(key),
            })
            .collect();
        self.apply(check, &given).await?;
        for (key, object) in changes {
            match object {
                Some(object) => drop(model.insert(key.clone(), self.kept(object))),
                None => drop(model.remove(key)),
            }
        }
        Ok(())
    }

    /// That a scan finds what the model has.
    async fn finds(
        &self,
        check: &'static str,
        model: &Model,
        range: &KeyRange,
        limit: usize,
    ) -> Result<Batch, Violation> {
        let found = self.scan(check, range, limit).await?;
        let wanted = model.iter().filter(|(key, _)| range.contains(key)).take(limit);
        let wanted: Batch = wanted.map(|(key, object)| object.as_ref(key)).collect();
        if found == wanted {
            return Ok(found);
        }
        let first = (0..found.len().max(wanted.len())).find(|&place| found.get(place) != wanted.get(place));
        let first = first.unwrap_or_default();
        Err(violation(
            check,
            format!(
                "the first {limit} of {range} are {} and not {}; number {first} is {:?} and not {:?}",
                counted(found.len(), "object", "objects"),
                wanted.len(),
                found.get(first),
                wanted.get(first)
            ),
        ))
    }

    async fn is(&self, check: &'static str, model: &Model) -> Result<(), Violation> {
        self.finds(check, model, &KeyRange::all(), model.len() + 10).await.map(drop)
    }

    async fn clear(&self, check: &'static str, model: &mut Model) -> Result<(), Violation> {
        let changes: Vec<_> = model.keys().map(|key| (key.clone(), None)).collect();
        self.change(check, model, &changes).await?;
        self.is(check, model).await
    }

    fn identity(&self) -> Result<(), Violation> {
        let (one, other) = (self.store.identity(), self.store.identity());
        let has_secret = self.conformance.secrets.iter().any(|secret| one.contains(secret));
        match () {
            () if one.is_empty() => Err(violation("identity", "it is empty")),
            () if one != other => Err(violation("identity", "it is another one each time")),
            () if has_secret => Err(violation("identity", "it shows a secret")),
            () => Ok(()),
        }
    }

    /// That the points cut the range into no more stretches than asked for.
    async fn splits(&self, check: &'static str, range: &KeyRange) -> Result<(), Violation> {
        for parts in [0, 1, 2, 3, 7, 64, 1000] {
            let points = match self.store.split_points(range, parts).await {
                Ok(points) => points,
                Err(error) => return Err(violation(check, format!("no split points: {}", self.told(check, &error)?))),
            };
            let is_inside = |key: &String| range.contains(key) && range.until.as_ref() != Some(key);
            if points.len() + 1 > parts.max(1)
                || !points.is_sorted_by(|one, next| one < next)
                || !points.iter().all(is_inside)
            {
                return Err(violation(check, format!("{range} is cut into {parts} at {points:?}")));
            }
        }
        Ok(())
    }

    /// Order, borders and limits.
    async fn odd_keys(&self) -> Result<(), Violation> {
        let mut model = Model::new();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut keys = self.conformance.keys.clone();
        for place in (1..keys.len()).rev() {
            keys.swap(place, random.below(place + 1));
        }
        for some in keys.chunks(7) {
            let object = |key: &String| Object { etag: Some(format!("e{}", key.len())), ..Object::default() };
            let changes: Vec<_> = some.iter().map(|key| (key.clone(), Some(object(key)))).collect();
            self.change("odd keys", &mut model, &changes).await?;
        }
        self.is("the order of odd keys", &model).await?;
        for limit in [1, 2, 3, 7, model.len().max(2) - 1, model.len(), model.len() + 1] {
            let mut range = KeyRange::all();
            for _ in 0..=model.len() {
                let page = self.finds("pages of a scan", &model, &range, limit).await?;
                let Some(last) = page.last().filter(|_| page.len() == limit) else { break };
                range.after = Some(last.key.to_owned());
            }
        }
        // Borders that are keys, that stand right behind or before one, and that no store can hold.
        let mut borders: BTreeSet<Option<String>> = model.keys().cloned().map(Some).collect();
        borders.extend(model.keys().map(|key| Some(format!("{key}\0"))));
        borders.extend(model.keys().map(|key| Some(format!("{key}\0\u{10ffff}"))));
        borders.extend(model.keys().map(|key| Some(format!("{key}\u{1}"))));
        borders.extend([None, Some(String::new())]);
        let borders: Vec<_> = borders.into_iter().collect();
        for after in &borders {
            for until in [None, Some(random.below(borders.len())), Some(random.below(borders.len()))] {
                let until = until.and_then(|place| borders[place].clone());
                let range = KeyRange::new(after.clone(), until);
                self.finds("the borders of a range", &model, &range, 1 + random.below(model.len() + 2)).await?;
                if random.below(8) == 0 {
                    self.splits("split points among odd keys", &range).await?;
                }
            }
        }
        self.clear("odd keys are removed", &mut model).await
    }

    /// All that can be known of an object, and nothing.
    async fn values(&self) -> Result<(), Violation> {
        let mut model = Model::new();
        let times = [0, 1, 999, 1_000, 1_700_000_000_123_456_789, 253_402_207_200_000_000_000];
        let times = times.map(|time: i128| Timestamp::from_nanosecond(time).ok());
        let etags = ["", "d41d8cd98f00b204e9800998ecf8427e-2", "W/x", "\\N", "a\"b", "ä\tx"];
        let sizes = [0, 1, u64::from(u32::MAX), i64::MAX.cast_unsigned()];
        let mut objects = vec![Object::default()];
        objects.extend(times.map(|last_modified| Object { last_modified, ..Object::default() }));
        objects.extend(etags.map(|etag| Object { etag: Some(etag.to_owned()), ..Object::default() }));
        objects.extend(sizes.map(|size| Object { size: Some(size), ..Object::default() }));
        objects.extend([[0; 32], [0xff; 32]].map(|content| Object { content: Some(content), ..Object::default() }));
        let full =
            Object { etag: Some("x".to_owned()), size: Some(7), last_modified: times[4], content: Some([1; 32]) };
        objects.push(full.clone());
        let changes: Vec<_> =
            objects.iter().enumerate().map(|(place, object)| (format!("k{place:03}"), Some(object.clone()))).collect();
        self.change("what is known of objects", &mut model, &changes).await?;
        self.is("what is known of objects", &model).await?;
        // Whatever was known before does not shine through.
        for other in [full, Object::default()] {
            let changes: Vec<_> = model.keys().map(|key| (key.clone(), Some(other.clone()))).collect();
            self.change("objects that change", &mut model, &changes).await?;
            self.is("objects that change", &model).await?;
            self.change("the same changes again", &mut model, &changes).await?;
            self.is("the same changes again", &model).await?;
        }
        self.apply("no changes", &[]).await?;
        self.is("no changes", &model).await?;
        self.clear("objects that go", &mut model).await?;
        self.apply("objects that are gone go again", &[KnownChange::Remove("k000"), KnownChange::Remove("a\0b")])
            .await?;
        self.is("objects that are gone go again", &model).await
    }

    /// Of several changes to a key the last one counts.
    async fn last_change(&self) -> Result<(), Violation> {
        let check = "several changes to a key";
        let mut model = Model::new();
        let object = |etag: &str| Some(Object { etag: Some(etag.to_owned()), ..Object::default() });
        let changes =
            [("b", object("1")), ("a", None), ("b", object("2")), ("a", object("3")), ("c", object("4")), ("c", None)];
        let changes = changes.map(|(key, object)| (key.to_owned(), object));
        self.change(check, &mut model, &changes).await?;
        self.is(check, &model).await?;
        self.clear(check, &mut model).await
    }

    /// What cannot be kept is refused, with all that was to be changed along with it.
    async fn unfit(&self) -> Result<(), Violation> {
        let check = "an object that may be refused";
        let mut model = Model::new();
        let object = |etag: &str| Object { etag: Some(etag.to_owned()), ..Object::default() };
        let before = [("a".to_owned(), Some(object("1"))), ("b".to_owned(), Some(object("1")))];
        self.change(check, &mut model, &before).await?;
        let large = Object { size: Some(u64::MAX), ..Object::default() };
        for (key, odd) in [("m".to_owned(), large), ("m\0".to_owned(), object("1"))] {
            let new = object("2");
            let changes = [
                KnownChange::Set(new.as_ref("a")),
                KnownChange::Set(odd.as_ref(&key)),
                KnownChange::Remove("b"),
                KnownChange::Set(new.as_ref("z")),
            ];
            match self.store.apply(&changes).await {
                Ok(()) => {
                    let made = [("a", Some(&new)), (&key, Some(&odd)), ("b", None), ("z", Some(&new))];
                    for (key, object) in made {
                        match object {
                            Some(object) => drop(model.insert(key.to_owned(), self.kept(object))),
                            None => drop(model.remove(key)),
                        }
                    }
                }
                Err(Error::Unfit { key: named, .. }) if named == key => {}
                Err(error) => {
                    return Err(violation(check, format!("it fails otherwise: {}", self.told(check, &error)?)));
                }
            }
            self.is(check, &model).await?;
        }
        self.clear(check, &mut model).await
    }

    /// A call that is given up leaves the store whole, and of use.
    async fn early_drop(&self) -> Result<(), Violation> {
        let check = "a call that is dropped";
        const POLLS: usize = 12;
        let keys = |polls: usize| (0..100).map(move |number| format!("{polls:02}/{number:03}"));
        for polls in 0..POLLS {
            let keys: Vec<String> = keys(polls).collect();
            let changes: Vec<_> = keys.iter().map(|key| KnownChange::Set(ObjectRef::new(key))).collect();
            let done = given_up(self.store.apply(&changes), polls).await.is_some();
            drop(given_up(self.store.scan(&KeyRange::all(), 10), polls).await);
            let range = KeyRange::new(Some(format!("{polls:02}/")), Some(format!("{polls:02}/999")));
            let count = self.scan(check, &range, 1000).await?.len();
            if !(count == 100 || count == 0 && !done) {
                return Err(violation(check, format!("{count} of 100 changes are made")));
            }
        }
        // What was dropped may still be on its way to its end.
        let keys: Vec<String> = (0..POLLS).flat_map(keys).collect();
        let changes: Vec<_> = keys.iter().map(|key| KnownChange::Remove(key)).collect();
        let mut left = 0;
        for _ in 0..10 {
            self.apply(check, &changes).await?;
            left = self.scan(check, &KeyRange::all(), 1).await?.len();
        }
        if left == 0 { Ok(()) } else { Err(violation(check, "objects come back that were removed since")) }
    }

    /// Several scans and changes are under way at once.
    async fn at_once(&self) -> Result<(), Violation> {
        let check = "calls at once";
        let mut model = Model::new();
        let object = Object { size: Some(1), ..Object::default() };
        let keys: Vec<Vec<String>> =
            (0..16).map(|task| (0..50).map(|number| format!("{task:02}/{number:02}")).collect()).collect();
        try_join_all(keys.iter().map(|keys| async {
            let changes: Vec<_> = keys.iter().map(|key| KnownChange::Set(object.as_ref(key))).collect();
            self.apply(check, &changes).await?;
            let range = KeyRange::new(Some(keys[0].clone()), keys.last().cloned());
            let found = self.scan(check, &range, 100).await?;
            match found.iter().map(|object| object.key).eq(keys[1..].iter()) {
                true => Ok(()),
                false => Err(violation(check, format!("{range} has {found:?}"))),
            }
        }))
        .await?;
        model.extend(keys.into_iter().flatten().map(|key| (key, self.kept(&object))));
        self.is(check, &model).await?;
        self.clear(check, &mut model).await
    }

    /// Changes and scans at random, compared with a map.
    async fn random(&self) -> Result<(), Violation> {
        let check = "random changes";
        let mut model = Model::new();
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let keys = &self.conformance.keys;
        if keys.is_empty() {
            return Ok(());
        }
        let mut made = 0;
        while made < self.conformance.changes {
            let changes: Vec<_> = (0..=random.below(8))
                .map(|_| {
                    let object = (random.below(3) > 0).then(|| Object {
                        etag: (random.below(4) > 0).then(|| format!("{}", random.below(3))),
                        size: (random.below(4) > 0).then(|| random.below(3) as u64),
                        last_modified: Timestamp::from_second(random.below(3) as i64).ok(),
                        content: (random.below(4) == 0).then(|| [random.below(3) as u8; 32]),
                    });
                    (keys[random.below(keys.len())].clone(), object)
                })
                .collect();
            made += changes.len();
            self.change(check, &mut model, &changes).await?;
            let mut border = || (random.below(4) > 0).then(|| keys[random.below(keys.len())].clone());
            let range = KeyRange::new(border(), border());
            self.finds(check, &model, &range, 1 + random.below(keys.len())).await?;
        }
        self.is(check, &model).await?;
        self.clear(check, &mut model).await
    }

    /// So many that an estimate could go wrong.
    async fn many(&self) -> Result<(), Violation> {
        let check = "many objects";
        const COUNT: usize = 5000;
        let mut model = Model::new();
        let changes: Vec<_> = (0..COUNT)
            .map(|number| (format!("2024/{:02}/{number:06}.json", number % 12), Some(Object::default())))
            .collect();
        self.change(check, &mut model, &changes).await?;
        self.is(check, &model).await?;
        let middle = model.keys().nth(COUNT / 2).cloned();
        for range in [KeyRange::all(), KeyRange::new(middle.clone(), None), KeyRange::new(None, middle)] {
            self.splits(check, &range).await?;
            let points = self.store.split_points(&range, 4).await;
            let points = points.map_err(|error| violation(check, shown(&error)))?;
            // An estimate may be wrong by half.
            let count = |range: &KeyRange| model.keys().filter(|key| range.contains(key)).count();
            let (mut rest, fair) = (range.clone(), count(&range) / 4);
            for point in &points {
                let (stretch, next) = rest.split_behind(point);
                if points.len() == 3 && !(fair / 2..=fair * 2).contains(&count(&stretch)) {
                    return Err(violation(
                        check,
                        format!("{stretch} has {}, a fourth is {fair}", counted(count(&stretch), "object", "objects")),
                    ));
                }
                rest = next;
            }
        }
        self.clear(check, &mut model).await
    }
}

/// Polls a future so many times, and drops it.
async fn given_up<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
