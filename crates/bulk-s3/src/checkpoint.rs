use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Change, Error, KeyRange, StretchDiff};

/// The form of the file that is written; others are refused.
const VERSION: u32 = 1;
/// A checkpoint has a stretch or two for each connection; one that is larger than this is none.
const LIMIT: u64 = 64 * 1024 * 1024;

/// What a checkpoint is of: only the same job may go on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Job {
    /// The bucket: its URL, or whatever else tells it from others of its name. No secret.
    pub bucket: String,
    /// What keys begin with.
    pub prefix: String,
    /// [`KeyFilter::identity`](crate::KeyFilter::identity).
    pub filter: String,
    /// By what objects are compared.
    pub compare: String,
    /// [`KnownObjects::identity`](crate::KnownObjects::identity).
    pub store: String,
    /// What becomes of the changes, as far as it matters to one that goes on.
    pub target: String,
}

impl Job {
    /// What differs, in words.
    fn differences(&self, other: &Self) -> Vec<String> {
        let fields = [
            ("bucket", &self.bucket, &other.bucket),
            ("prefix", &self.prefix, &other.prefix),
            ("filter", &self.filter, &other.filter),
            ("comparison", &self.compare, &other.compare),
            ("store", &self.store, &other.store),
            ("target", &self.target, &other.target),
        ];
        let differing = fields.into_iter().filter(|(_, was, is)| was != is);
        differing.map(|(name, was, is)| format!("its {name} was {was:?} and is {is:?} now")).collect()
    }
}

/// What a job has found so far, over all its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Keys that the bucket has, whatever the filter means.
    pub keys: u64,
    /// Objects that were not known.
    pub added: u64,
    /// Objects that were known as others.
    pub modified: u64,
    /// Objects that were known and are gone.
    pub removed: u64,
    /// Objects that are as they were known.
    pub unchanged: u64,
}

impl Counts {
    /// Adds what there is in a stretch.
    pub fn add(&mut self, stretch: &StretchDiff) {
        self.keys += stretch.keys;
        self.unchanged += stretch.unchanged;
        for change in stretch.changes() {
            match change {
                Change::Added(_) => self.added += 1,
                Change::Modified { .. } => self.modified += 1,
                Change::Removed(_) => self.removed += 1,
            }
        }
    }
}

/// How far a job has come: the stretches of the key space that are left. A run that was ended in whatever way goes on with
/// those.
///
/// A stretch is [done](Self::done) when what was found in it has had its effect. The file is replaced whole by
/// [`save`](Self::save), and removed by [`finish`](Self::finish); dropping a checkpoint leaves the file as it was saved last.
/// Saving writes a file of some hundred bytes for each connection, so it may follow each page.
///
/// ```
/// use bulk_s3::{Checkpoint, Job, KeyRange};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("sync.json");
/// let mut job = Job::default();
/// job.bucket = "https://my-bucket.s3.us-east-1.amazonaws.com/".to_owned();
/// job.prefix = "builds/".to_owned();
/// let mut checkpoint = Checkpoint::open(&path, job.clone())?;
/// checkpoint.done(&KeyRange::new(None, Some("builds/m".to_owned())));
/// checkpoint.save()?;
/// drop(checkpoint); // or whatever ends the process
///
/// let mut checkpoint = Checkpoint::open(&path, job)?;
/// let left = [KeyRange::new(Some("builds/m".to_owned()), None)];
/// assert_eq!(checkpoint.left(), left); // what `ListOptions::ranges` takes
/// checkpoint.done(&left[0]);
/// checkpoint.finish()?;
/// assert!(!path.exists());
/// # Ok::<(), bulk_s3::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    job: Job,
    /// In the order of the keys; none touches another.
    left: Vec<KeyRange>,
    /// What was found in the stretches that are done.
    pub counts: Counts,
    was_there: bool,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    bulk_checkpoint: u32,
    job: Job,
    counts: Counts,
    left: Vec<SavedRange>,
}

#[derive(Serialize, Deserialize)]
struct SavedRange {
    after: Option<String>,
    until: Option<String>,
}

/// What Buildhub's `backfill` keeps: the last key of the last page that it was done with.
#[derive(Deserialize)]
struct Buildhub {
    key: String,
}

impl Checkpoint {
    /// Opens the checkpoint of a job, or begins one with all keys left if there is no such file. The file is written by
    /// [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if the file cannot be read, is no checkpoint, or is one of another job.
    pub fn open(path: impl Into<PathBuf>, job: Job) -> Result<Self, Error> {
        let path = path.into();
        let refused = |what: String| Error::Checkpoint { path: path.clone(), what, source: None };
        let Some(text) = read(&path)? else {
            return Ok(Self { path, job, left: vec![KeyRange::all()], counts: Counts::default(), was_there: false });
        };
        let saved: Saved = serde_json::from_slice(&text).map_err(|error| refused(format!("it is none: {error}")))?;
        if saved.bulk_checkpoint != VERSION {
            return Err(refused(format!("it has version {}, and {VERSION} is known", saved.bulk_checkpoint)));
        }
        let differences = saved.job.differences(&job);
        if !differences.is_empty() {
            return Err(refused(format!("it is of another job: {}", differences.join("; "))));
        }
        let mut left: Vec<_> = saved.left.into_iter().map(|range| KeyRange::new(range.after, range.until)).collect();
        left.retain(|range| !range.is_empty());
        left.sort_by(|a, b| a.after.cmp(&b.after));
        let overlap = |pair: &[KeyRange]| match (&pair[0].until, &pair[1].after) {
            (Some(until), Some(after)) => until > after,
            _ => true,
        };
        if left.windows(2).any(overlap) {
            return Err(refused("its stretches overlap".to_owned()));
        }
        Ok(Self { path, job, left, counts: saved.counts, was_there: true })
    }

    /// Begins a checkpoint with what Buildhub's `backfill` left to do, as its own file (`{"key": …, "loops": …, "time": …}`)
    /// tells: all keys behind that one.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if that file cannot be read, or is none.
    pub fn since_buildhub(path: impl Into<PathBuf>, job: Job, buildhub: &Path) -> Result<Self, Error> {
        let refused = |what: String| Error::Checkpoint { path: buildhub.to_owned(), what, source: None };
        let text = read(buildhub)?.ok_or_else(|| refused("there is no such file".to_owned()))?;
        let found: Buildhub = serde_json::from_slice(&text)
            .map_err(|error| refused(format!("it is not Buildhub's {{\"key\", \"loops\", \"time\"}}: {error}")))?;
        let left = vec![KeyRange::new(Some(found.key), None)];
        Ok(Self { path: path.into(), job, left, counts: Counts::default(), was_there: false })
    }

    /// Whether the file was there, so that this goes on with what an earlier run left.
    pub fn is_resumed(&self) -> bool {
        self.was_there
    }

    /// What is left, in the order of the keys.
    pub fn left(&self) -> &[KeyRange] {
        &self.left
    }

    /// Takes a stretch off what is left.
    pub fn done(&mut self, range: &KeyRange) {
        // Few are left at a time, so nothing is gained by a search.
        let left = std::mem::take(&mut self.left);
        for range_left in left {
            let (before, rest) = match &range.after {
                Some(after) => range_left.split_behind(after),
                None => (KeyRange::new(Some(String::new()), Some(String::new())), range_left),
            };
            let behind = range.until.as_ref().map(|until| rest.split_behind(until).1);
            self.left.extend([Some(before), behind].into_iter().flatten().filter(|range| !range.is_empty()));
        }
    }

    /// Replaces the file. It is there whole, whatever ends the process; whether it outlives the machine's end is not waited
    /// for: then an older one may be there, from which the same is done again.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if it cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |source: io::Error| Error::Checkpoint { path: self.path.clone(), what, source: Some(source) }
        };
        let left = self.left.iter();
        let saved = Saved {
            bulk_checkpoint: VERSION,
            job: self.job.clone(),
            counts: self.counts,
            left: left.map(|range| SavedRange { after: range.after.clone(), until: range.until.clone() }).collect(),
        };
        let text = serde_json::to_vec(&saved).map_err(|error| failed("it cannot be written")(error.into()))?;
        let new = self.temporary();
        let written = File::create(&new).and_then(|mut file| file.write_all(&text));
        written.map_err(failed("its successor cannot be written beside it"))?;
        fs::rename(&new, &self.path).map_err(failed("its successor cannot be put in its place"))
    }

    /// Removes the file: nothing is left.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if it cannot be removed.
    pub fn finish(self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Checkpoint {
                path: self.path,
                what: "it cannot be removed".to_owned(),
                source: Some(source),
            }),
            _ => Ok(()),
        }
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        self.path.with_file_name(name)
    }
}

/// The bytes of a file that may not be there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let failed = |source| Error::Checkpoint {
        path: path.to_owned(),
        what: "it cannot be read".to_owned(),
        source: Some(source),
    };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(metadata) if metadata.len() > LIMIT => {
            let what = format!("it is none: it has {} bytes", metadata.len());
            Err(Error::Checkpoint { path: path.to_owned(), what, source: None })
        }
        Ok(_) => fs::read(path).map(Some).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn job(prefix: &str) -> Job {
        Job { bucket: "http://127.0.0.1/data/".into(), prefix: prefix.into(), ..Job::default() }
    }

    fn range(after: Option<&str>, until: Option<&str>) -> KeyRange {
        KeyRange::new(after.map(str::to_owned), until.map(str::to_owned))
    }

    #[test]
    fn a_checkpoint_goes_on_where_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json");
        let mut checkpoint = Checkpoint::open(&path, job("a/")).unwrap();
        assert!(!checkpoint.is_resumed());
        assert_eq!(checkpoint.left(), [KeyRange::all()]);
        checkpoint.done(&range(Some("b"), Some("d")));
        checkpoint.done(&range(Some("d"), Some("e\u{1}é")));
        checkpoint.counts.keys = 7;
        checkpoint.save().unwrap();
        checkpoint.done(&range(None, Some("b")));
        drop(checkpoint);
        let mut again = Checkpoint::open(&path, job("a/")).unwrap();
        assert!(again.is_resumed());
        assert_eq!(again.left(), [range(None, Some("b")), range(Some("e\u{1}é"), None)]);
        assert_eq!(again.counts.keys, 7);
        again.done(&range(Some("e\u{1}é"), None));
        again.done(&range(None, Some("b")));
        assert_eq!(again.left(), []);
        again.finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_checkpoint_of_another_job_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json");
        Checkpoint::open(&path, job("a/")).unwrap().save().unwrap();
        let mut other = job("b/");
        other.store = "sqlite:x".into();
        let error = Checkpoint::open(&path, other).unwrap_err().to_string();
        let expected =
            "it is of another job: its prefix was \"a/\" and is \"b/\" now; its store was \"\" and is \"sqlite:x\" now";
        assert!(error.ends_with(expected), "{error}");
        for (text, expected) in [
            ("{}", "it is none: missing field"),
            ("", "it is none: EOF"),
            (
                r#"{"bulk_checkpoint":2,"job":{"bucket":"","prefix":"","filter":"","compare":"","store":"","target":""},"counts":{"keys":0,"added":0,"modified":0,"removed":0,"unchanged":0},"left":[]}"#,
                "it has version 2, and 1 is known",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let error = Checkpoint::open(&path, job("a/")).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn buildhubs_own_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("backfill-last-successful-key.json");
        fs::write(&theirs, r#"{"key": "pub/firefox/x", "loops": 12, "time": 1529.5}"#).unwrap();
        let path = folder.path().join("checkpoint.json");
        let checkpoint = Checkpoint::since_buildhub(&path, job(""), &theirs).unwrap();
        assert_eq!(checkpoint.left(), [range(Some("pub/firefox/x"), None)]);
        let error = Checkpoint::since_buildhub(&path, job(""), &path).unwrap_err().to_string();
        assert!(error.ends_with("there is no such file"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_was_not_done(cuts in proptest::collection::btree_set("[a-e]{1,2}", 0..8), order in any::<u64>()) {
            // The stretches between the cuts are done in a random order.
            let borders: Vec<Option<String>> =
                std::iter::once(None).chain(cuts.into_iter().map(Some)).chain(std::iter::once(None)).collect();
            let mut stretches: Vec<KeyRange> =
                borders.windows(2).map(|pair| KeyRange::new(pair[0].clone(), pair[1].clone())).collect();
            let mut random = order;
            let mut done = BTreeSet::new();
            let mut checkpoint = Checkpoint::open("nowhere/at/all", Job::default()).unwrap();
            let keys: Vec<String> = ('a'..='f').flat_map(|a| ["", "a", "c", "e"].map(|b| format!("{a}{b}"))).collect();
            while !stretches.is_empty() {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let stretch = stretches.swap_remove((random >> 33) as usize % stretches.len());
                checkpoint.done(&stretch);
                done.extend(keys.iter().filter(|key| stretch.contains(key)).cloned());
                for key in &keys {
                    let is_left = checkpoint.left().iter().filter(|range| range.contains(key)).count();
                    prop_assert_eq!(is_left, usize::from(!done.contains(key)), "{} {:?}", key, checkpoint.left());
                }
            }
            prop_assert!(checkpoint.left().is_empty());
        }
    }
}
