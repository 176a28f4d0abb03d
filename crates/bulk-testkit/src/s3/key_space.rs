//! Keys that follow from an index, so that a bucket of sixty million is held nowhere.

use std::{fmt::Write, ops::Bound, str::FromStr, sync::LazyLock};

use jiff::{Timestamp, civil::date};
use serde_json::json;

use super::{
    listing::{Listed, SortedKeys, Versioned},
    made_up::mixed,
    object::Object,
};

/// Numbers in keys have as many digits, so that their order is that of their bytes.
const DIGITS: usize = 10;
/// The days of [`Layout::Dates`]: 2015 to 2024.
const DAYS: u64 = 3653;
/// 2015-01-01T00:00:00Z
const FIRST_SECOND: i64 = 1_420_070_400;
const DAY: i64 = 86_400;
/// What the keys that match end with.
const MATCH: &str = "buildhub.json";
const PRODUCTS: [&str; 4] = ["devedition", "fennec", "firefox", "thunderbird"];
const LOCALES: [&str; 8] = ["ach", "de", "en-US", "es-ES", "ja-JP-mac", "pt-BR", "sv-SE", "zh-TW"];
const PLATFORMS: [&str; 6] = ["linux-i686", "linux-x86_64", "mac", "win32", "win64", "win64-aarch64"];
/// The files beside a `buildhub.json`, in the order of their bytes, and behind it.
const SIBLINGS: [&str; 32] = [
    "buildhub.json.asc",
    "checksums",
    "checksums.asc",
    "common.tests.tar.gz",
    "complete.mar",
    "complete.mar.asc",
    "cppunittest.tests.tar.gz",
    "crashreporter-symbols.zip",
    "dmg",
    "exe",
    "exe.asc",
    "generated-files.tar.gz",
    "gtest.tests.tar.gz",
    "installer.exe",
    "json",
    "langpack.xpi",
    "langpack.xpi.asc",
    "mochitest.tests.tar.gz",
    "mozinfo.json",
    "partial.1.mar",
    "partial.2.mar",
    "partial.3.mar",
    "raptor.tests.tar.gz",
    "reftest.tests.tar.gz",
    "stub.exe",
    "talos.tests.tar.gz",
    "tar.bz2",
    "tar.bz2.asc",
    "test_packages.json",
    "txt",
    "web-platform.tests.tar.gz",
    "xpcshell.tests.tar.gz",
];

/// How the keys of a [`KeySpace`] look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// As in the bucket that Buildhub lists, with all builds of a product side by side:
    /// `pub/firefox/candidates/builds/0000001234/firefox-99.0.en-US.linux-x86_64.buildhub.json` and its siblings.
    Builds,
    /// By the hour, from 2015 to 2024: `a/very/long/prefix/2019/01/02/03/0000001234.log.gz`.
    Dates,
    /// All but one in a thousand below one prefix, `data/production/events/`; the others before and behind it.
    HotPrefix,
    /// Half of all lie in one folder, half of the others in the one below it, and so on: `tree/a0000001234.log.gz`,
    /// `tree/z/a…`, `tree/z/z/a…`.
    Skewed,
}

impl Layout {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Builds, Self::Dates, Self::HotPrefix, Self::Skewed];

    /// What [`from_str`](FromStr::from_str) reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builds => "builds",
            Self::Dates => "dates",
            Self::HotPrefix => "hot-prefix",
            Self::Skewed => "skewed",
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|layout| layout.name() == name);
        found.ok_or_else(|| format!("no such layout: {name}; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The keys of a made-up bucket, and what stands under them: all of it follows from these fields and an index, and the
/// keys ascend with the index in the order of their bytes.
///
/// Editions of one space differ as a bucket does from its own past. From each to the next, one object in
/// `changed_one_in` has another ETag, size and date, one key in `missing_one_in` is gone, and as many are new. Which
/// ones they are is scattered evenly: of each stretch of as many keys it is one.
///
/// ```
/// use bulk_testkit::s3::{KeySpace, Layout};
///
/// let keys = KeySpace::new(Layout::Builds, 60_000_000);
/// assert_eq!(keys.key(0), "pub/devedition/candidates/builds/0000000000/devedition-35.5.pt-BR.win32.buildhub.json");
/// let next = KeySpace { edition: 1, ..keys.clone() };
/// assert_eq!(next.len(), 60_000_000);
/// assert_ne!(keys, next);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpace {
    /// How the keys look.
    pub layout: Layout,
    /// How many there are, in each edition.
    pub keys: u64,
    /// Which edition this is.
    pub edition: u64,
    /// One key in so many ends with `buildhub.json`: by default 33, which is 3%; 0 for none.
    pub match_one_in: u64,
    /// By default 1,000; 0 for none.
    pub changed_one_in: u64,
    /// By default 1,000; 0 and 1 for none.
    pub missing_one_in: u64,
}

/// One object of a [`KeySpace`], as a listing has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeUpObject {
    /// Its key.
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// Without quotes; in the form of a multipart upload's of one part, so that nobody takes it for an MD5.
    pub etag: String,
    /// A whole second.
    pub last_modified: Timestamp,
}

/// How many objects of one edition are not those of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditionChanges {
    /// New keys.
    pub added: u64,
    /// Keys that are gone.
    pub removed: u64,
    /// Keys whose object has another ETag.
    pub modified: u64,
    /// All other keys.
    pub unchanged: u64,
}

impl KeySpace {
    /// The first edition of so many keys.
    pub fn new(layout: Layout, keys: u64) -> Self {
        Self { layout, keys, edition: 0, match_one_in: 33, changed_one_in: 1000, missing_one_in: 1000 }
    }

    /// How many keys there are.
    pub fn len(&self) -> u64 {
        self.keys
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// The key of this index, which is to be less than [`len`](Self::len).
    pub fn key(&self, index: u64) -> String {
        let mut key = String::new();
        self.push_key(self.slot(index), &mut key);
        key
    }

    /// The object of this index, which is to be less than [`len`](Self::len).
    pub fn object(&self, index: u64) -> MadeUpObject {
        let meta = self.meta(self.slot(index));
        let mut etag = String::new();
        meta.push_etag(&mut etag);
        let last_modified = Timestamp::from_second(meta.last_modified).unwrap_or(Timestamp::UNIX_EPOCH);
        MadeUpObject { key: self.key(index), size: meta.size, etag, last_modified }
    }

    /// All objects, in the order of their keys.
    pub fn objects(&self) -> impl Iterator<Item = MadeUpObject> + '_ {
        (0..self.keys).map(|index| self.object(index))
    }

    /// The index of the first key that is not less than these bytes, found with some thirty looks at keys.
    pub fn position(&self, bytes: &[u8]) -> u64 {
        let (mut low, mut high) = (0, self.keys);
        let mut key = String::new();
        while low < high {
            let middle = low + (high - low) / 2;
            key.clear();
            self.push_key(self.slot(middle), &mut key);
            if key.as_bytes() < bytes { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The bytes of the object under this key: JSON as Buildhub has it where the key ends with `buildhub.json`, and
    /// [`made_up`](super::made_up()) ones elsewhere. `None` if there is no such key.
    pub(super) fn open(&self, key: &str) -> Option<Object> {
        let index = self.position(key.as_bytes());
        if index == self.keys || self.key(index) != key {
            return None;
        }
        let MadeUpObject { size, etag, last_modified, .. } = self.object(index);
        let slot = self.slot(index);
        let object = if self.is_match(slot) {
            Object::new(self.json(slot, key, size)).content_type("application/json")
        } else {
            Object::made_up(size, mixed(slot).wrapping_add(self.version(slot)))
        };
        Some(object.etag(&etag).last_modified(last_modified))
    }

    /// What a differ should find that knows this edition and lists `newer`, another edition of the same space, of the
    /// keys that `counted` takes. Looks at each of them.
    pub fn changes(&self, newer: &Self, counted: impl Fn(&str) -> bool) -> EditionChanges {
        let mut changes = EditionChanges::default();
        let mut key = String::new();
        for slot in 0..self.slots() {
            let count = match (self.has(slot), newer.has(slot)) {
                (false, false) => continue,
                (true, false) => &mut changes.removed,
                (false, true) => &mut changes.added,
                (true, true) if self.version(slot) != newer.version(slot) => &mut changes.modified,
                (true, true) => &mut changes.unchanged,
            };
            key.clear();
            self.push_key(slot, &mut key);
            *count += u64::from(counted(&key));
        }
        changes
    }

    /// Keys of all editions have their slots, of which each edition leaves some out: one in each whole stretch of
    /// `missing_one_in`.
    fn slots(&self) -> u64 {
        self.keys + self.holes()
    }

    fn holes(&self) -> u64 {
        if self.missing_one_in > 1 { self.keys / (self.missing_one_in - 1) } else { 0 }
    }

    fn slot(&self, index: u64) -> u64 {
        let stretch = if self.missing_one_in > 1 { index / (self.missing_one_in - 1) } else { 0 };
        if stretch >= self.holes() {
            return index + self.holes();
        }
        let at = index % (self.missing_one_in - 1);
        stretch * self.missing_one_in + at + u64::from(at >= self.hole(stretch))
    }

    /// Which slot of a stretch is left out.
    fn hole(&self, stretch: u64) -> u64 {
        mixed(stretch ^ 0x686f_6c65).wrapping_add(self.edition) % self.missing_one_in
    }

    fn has(&self, slot: u64) -> bool {
        if slot >= self.slots() {
            return false;
        }
        let stretch = if self.missing_one_in > 1 { slot / self.missing_one_in } else { 0 };
        stretch >= self.holes() || slot % self.missing_one_in != self.hole(stretch)
    }

    /// How often the object has been changed. In each edition it is the turn of another one of a stretch.
    fn version(&self, slot: u64) -> u64 {
        let stretch = self.changed_one_in;
        if stretch == 0 {
            return 0;
        }
        let turn = (mixed(slot / stretch) % stretch + slot % stretch) % stretch;
        (turn + self.edition) / stretch
    }

    fn is_match(&self, slot: u64) -> bool {
        match (self.match_one_in, self.layout) {
            (0, _) => false,
            (stretch, Layout::Builds) => slot.is_multiple_of(stretch),
            (stretch, _) => slot % stretch == mixed(slot / stretch) % stretch,
        }
    }

    fn meta(&self, slot: u64) -> MadeUpMeta {
        let version = self.version(slot);
        let high = mixed(slot.wrapping_mul(0x1_0000_0001).wrapping_add(version));
        let low = mixed(high);
        // Enough for what the JSON must hold.
        let size = if self.is_match(slot) { 1536 + low % 1024 } else { 1 + low % (1 << 20) };
        let last_modified = match self.layout {
            Layout::Dates => {
                let (day, second) = self.time(slot);
                FIRST_SECOND + (day as i64) * DAY + second as i64
            }
            // What was built together is of one time.
            _ => FIRST_SECOND + (mixed(slot / 33) % (DAYS * DAY as u64)) as i64,
        };
        let etag = u128::from(high) << 64 | u128::from(low);
        MadeUpMeta { size, etag, last_modified: last_modified + version as i64 * DAY }
    }

    /// The day of a slot in [`Layout::Dates`], and the second of that day.
    fn time(&self, slot: u64) -> (u64, u64) {
        let a_day = self.slots().div_ceil(DAYS).max(1);
        (slot / a_day, (slot % a_day) * DAY as u64 / a_day)
    }

    fn push_key(&self, slot: u64, key: &mut String) {
        match self.layout {
            Layout::Builds => self.push_build(slot, key),
            Layout::Dates => {
                let (day, second) = self.time(slot);
                key.push_str("a/very/long/prefix/");
                key.push_str(&DATES[day as usize]);
                push_number(key, second / 3600, 2);
                key.push('/');
                self.push_file(slot, key);
            }
            Layout::HotPrefix => {
                let cold = self.slots() / 2000;
                key.push_str(match slot {
                    slot if slot < cold => "archive/",
                    slot if slot >= self.slots() - cold => "temporary/",
                    _ => "data/production/events/",
                });
                self.push_file(slot, key);
            }
            Layout::Skewed => {
                key.push_str("tree/");
                // Of what is left from here on, how often half of all fits into half.
                let left = self.slots() - slot;
                (1..64).take_while(|depth| left <= self.slots() >> depth).for_each(|_| key.push_str("z/"));
                key.push('a');
                self.push_file(slot, key);
            }
        }
    }

    fn push_build(&self, slot: u64, key: &mut String) {
        let files = if self.match_one_in == 0 { SIBLINGS.len() as u64 } else { self.match_one_in };
        let (build, file) = (slot / files, slot % files);
        let a_product = self.slots().div_ceil(files).div_ceil(PRODUCTS.len() as u64);
        let product = PRODUCTS[(build / a_product) as usize % PRODUCTS.len()];
        let Build { major, minor, locale, platform } = Build::of(build);
        key.push_str("pub/");
        key.push_str(product);
        key.push_str("/candidates/builds/");
        push_number(key, build, DIGITS);
        key.push('/');
        key.push_str(product);
        key.push('-');
        push_number(key, major, 2);
        key.push('.');
        push_number(key, minor, 1);
        key.push('.');
        key.push_str(locale);
        key.push('.');
        key.push_str(platform);
        key.push('.');
        let sibling = if self.match_one_in == 0 { Some(file) } else { file.checked_sub(1) };
        match sibling.map(|sibling| (sibling, SIBLINGS.get(sibling as usize))) {
            None => key.push_str(MATCH),
            Some((_, Some(sibling))) => key.push_str(sibling),
            Some((number, None)) => {
                key.push_str("zip.");
                push_number(key, number, DIGITS);
            }
        }
    }

    fn push_file(&self, slot: u64, key: &mut String) {
        push_number(key, slot, DIGITS);
        key.push('.');
        key.push_str(if self.is_match(slot) { MATCH } else { "log.gz" });
    }

    /// Of exactly `size` bytes.
    fn json(&self, slot: u64, key: &str, size: u64) -> String {
        let build = slot / self.match_one_in.max(1);
        let Build { major, minor, locale, platform } = Build::of(build);
        let version = self.version(slot);
        let built = Timestamp::from_second(self.meta(slot).last_modified).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut json = json!({
            "build": {"date": built.to_string(), "id": format!("{build:014}"), "number": 1 + version},
            "download": {
                "date": built.to_string(),
                "mimetype": "application/octet-stream",
                "size": mixed(slot) % 100_000_000,
                "url": format!("https://archive.example/{}", key.replace(MATCH, "tar.bz2")),
            },
            "source": {
                "product": PRODUCTS.iter().find(|product| key.contains(*product)).unwrap_or(&"firefox"),
                "repository": "https://hg.example/releases/mozilla-release",
                "revision": format!("{:016x}{:016x}", mixed(build), mixed(slot.wrapping_add(version << 32))),
                "tree": "mozilla-release",
            },
            "target": {
                "channel": "release",
                "locale": locale,
                "os": platform.split('-').next(),
                "platform": platform,
                "version": format!("{major}.{minor}"),
            },
        })
        .to_string();
        // A last member fills it up.
        const FILLER: &str = ",\"xpadding\":\"\"}";
        json.pop();
        let filler = (size as usize).saturating_sub(json.len() + FILLER.len());
        let _ = write!(json, ",\"xpadding\":\"{}\"}}", "x".repeat(filler));
        json
    }
}

/// The folders of [`Layout::Dates`].
static DATES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let days = date(2015, 1, 1).series(jiff::Span::new().days(1));
    days.take(DAYS as usize).map(|day| day.strftime("%Y/%m/%d/").to_string()).collect()
});

/// What a build is of.
struct Build {
    major: u64,
    minor: u64,
    locale: &'static str,
    platform: &'static str,
}

impl Build {
    fn of(number: u64) -> Self {
        let chance = mixed(number);
        Self {
            major: 10 + chance % 90,
            minor: (chance >> 8) % 10,
            locale: LOCALES[(chance >> 16) as usize % LOCALES.len()],
            platform: PLATFORMS[(chance >> 24) as usize % PLATFORMS.len()],
        }
    }
}

/// With zeros before it, and no fewer digits than it needs.
fn push_number(out: &mut String, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    let mut start = text.len();
    while number > 0 {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let text = &text[start.min(text.len() - digits)..];
    out.push_str(std::str::from_utf8(text).unwrap_or_default());
}

#[derive(Clone, Copy)]
pub(super) struct MadeUpMeta {
    size: u64,
    etag: u128,
    last_modified: i64,
}

impl Versioned for MadeUpMeta {}

impl Listed for MadeUpMeta {
    fn size(&self) -> u64 {
        self.size
    }

    fn push_etag(&self, out: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00000000000000000000000000000000-1";
        for (byte, digits) in self.etag.to_be_bytes().into_iter().zip(text.chunks_exact_mut(2)) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 15)];
        }
        out.push_str(std::str::from_utf8(&text).unwrap_or_default());
    }

    fn last_modified(&self) -> i64 {
        self.last_modified
    }
}

impl SortedKeys for KeySpace {
    type Meta = MadeUpMeta;

    fn walk(&self, from: Bound<&[u8]>, mut take: impl FnMut(&str, &MadeUpMeta) -> bool) {
        let start = match from {
            Bound::Unbounded => 0,
            Bound::Included(bytes) => self.position(bytes),
            // No key is between these bytes and themselves with a NUL behind them.
            Bound::Excluded(bytes) => self.position(&[bytes, b"\0"].concat()),
        };
        let mut key = String::new();
        for index in start..self.keys {
            let slot = self.slot(index);
            key.clear();
            self.push_key(slot, &mut key);
            if !take(&key, &self.meta(slot)) {
                return;
            }
        }
    }
}
