//! S3 Inventory as a listing.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_core::{
    Algorithm, Digest, DownloadOptions, Hasher, Request, Source, StageMeter, Wait, download, remove_staged,
};
use flate2::bufread::MultiGzDecoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::counted::counted;
use crate::listing_file::{Collection, each_batch, on_thread, table};
use crate::pager::{Selection, Stop};
use crate::rows::InventoryReader;
use crate::{Error, KeyFilter, KeyRange, ObjectReader, Page};

/// A larger manifest is none: each of its files takes some 150 bytes.
const MANIFEST_LIMIT: u64 = 64 << 20;

/// An inventory of a bucket, as S3 writes one each day or week
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html>): a listing that costs no request for
/// each thousand keys, and is some hours old.
///
/// It stands in a bucket, or was copied from there to a folder. Its files may be CSV with gzip, or Parquet (feature
/// `parquet`); ORC is refused. Inventories with all versions are read as those of the current objects: other versions and
/// delete markers are passed over.
pub struct Inventory {
    manifest: Manifest,
    format: Format,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Source(Arc<dyn Source>),
    Folder(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Parquet,
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html>
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    source_bucket: String,
    /// Milliseconds since 1970.
    creation_timestamp: Option<String>,
    file_format: String,
    file_schema: String,
    files: Vec<DataFile>,
}

#[derive(Clone, Debug, Deserialize)]
struct DataFile {
    key: String,
    size: Option<u64>,
    #[serde(rename = "MD5checksum")]
    md5: String,
}

/// What of an inventory is wanted, and how its files are fetched.
#[derive(Clone)]
#[non_exhaustive]
pub struct InventoryOptions {
    /// What keys begin with. Default: nothing.
    pub prefix: String,
    /// Which stretches of the key space; they may not overlap. Default: all of it.
    pub ranges: Vec<KeyRange>,
    /// Which keys are wanted; the others are counted. Default: all.
    pub filter: KeyFilter,
    /// Where its files are fetched to, and stay, so that a later run need not fetch them again. Default none: a temporary
    /// folder, from which each is removed when it is read.
    pub files: Option<PathBuf>,
    /// Where temporary files are made. Default: the system's folder for such files.
    pub folder: PathBuf,
    /// How they are fetched.
    pub download: DownloadOptions,
    /// The meter of this stage, whose worker is the thread that reads and sorts what is fetched. Its items are keys. Default
    /// none.
    pub meter: Option<StageMeter>,
}

impl Default for InventoryOptions {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            ranges: vec![KeyRange::all()],
            filter: KeyFilter::all(),
            files: None,
            folder: std::env::temp_dir(),
            download: DownloadOptions::default(),
            meter: None,
        }
    }
}

impl Inventory {
    /// Reads the manifest `key`, which ends with `manifest.json`, and `manifest.checksum` beside it, which S3 writes when
    /// all else is there.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if they cannot be fetched, [`Error::Table`] if the manifest is none, has another checksum, or is
    /// of a format that is not read; [`Error::Spool`] if there is no room for temporary files.
    pub async fn open(source: Arc<dyn Source>, key: &str) -> Result<Self, Error> {
        let name = source.location(key);
        let Some(stem) = key.strip_suffix("manifest.json") else {
            return Err(table(&name, "a manifest's name ends with manifest.json", None));
        };
        let folder = std::env::temp_dir();
        let failed = |source| Error::Spool { folder: folder.clone(), source };
        let folder = tempfile::tempdir_in(&folder).map_err(failed)?;
        let plan = [(stem, "manifest.json", "manifest"), (stem, "manifest.checksum", "checksum")];
        let plan = plan.map(|(stem, file, name)| {
            let mut request = Request::new(format!("{stem}{file}"));
            name.clone_into(&mut request.name);
            request
        });
        let mut files = download(source.clone(), plan, folder.path(), DownloadOptions::default());
        let mut staged = Vec::new();
        while let Some(delivery) = files.next().await {
            staged.push(delivery.outcome?);
        }
        let [manifest, checksum] = staged.as_slice() else {
            return Err(bulk_core::Error::Interrupted { location: name }.into());
        };
        Self::read(&name, &manifest.path, &checksum.path, Place::Source(source))
    }

    /// Reads the manifest of an inventory that was copied to a folder: `manifest.json`, and `manifest.checksum` beside it.
    /// Its files are there, too, or in `data` there or beside the folder, as S3 lays them out.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if they cannot be read, if the manifest is none, has another checksum, or is of a format that is
    /// not read.
    pub fn open_folder(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        let manifest = folder.join("manifest.json");
        let checksum = folder.join("manifest.checksum");
        Self::read(&manifest.display().to_string(), &manifest, &checksum, Place::Folder(folder))
    }

    fn read(name: &str, manifest: &Path, checksum: &Path, place: Place) -> Result<Self, Error> {
        let bad = |what: String| table(name, what, None);
        let read = |path: &Path| {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|file| file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes));
            read.map(|_| bytes)
        };
        let bytes = read(manifest).map_err(|error| table(name, "it cannot be read", Some(error)))?;
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(bad("it is longer than 64 MiB, and so no manifest".to_owned()));
        }
        let unread =
            "its checksum, in manifest.checksum beside it, cannot be read: without it the inventory is not complete";
        let checksum = read(checksum).map_err(|error| table(name, unread, Some(error)))?;
        let checksum = String::from_utf8_lossy(&checksum);
        let wanted = Digest::from_hex(Algorithm::Md5, checksum.trim())
            .map_err(|_| bad("manifest.checksum beside it is no MD5 in hexadecimal".to_owned()))?;
        let found = Digest::of(Algorithm::Md5, &bytes);
        if found != wanted {
            return Err(bad(format!("its content is {found}, and must be {wanted}, by manifest.checksum")));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("it is no manifest of an inventory: {error}")))?;
        let format = match manifest.file_format.to_ascii_uppercase().as_str() {
            "CSV" => Format::Csv,
            "PARQUET" if cfg!(feature = "parquet") => Format::Parquet,
            "PARQUET" => {
                let what = "its files are Parquet, and this program was built without the feature parquet";
                return Err(bad(what.to_owned()));
            }
            _ => {
                let format = &manifest.file_format;
                let what =
                    format!("its files are {format}, which is not read: have the inventory written as CSV or Parquet");
                return Err(bad(what));
            }
        };
        for file in &manifest.files {
            Digest::from_hex(Algorithm::Md5, &file.md5)
                .map_err(|_| bad(format!("the MD5checksum of {:?} is no MD5 in hexadecimal", file.key)))?;
        }
        Ok(Self { manifest, format, place })
    }

    /// The bucket that it lists.
    pub fn bucket(&self) -> &str {
        &self.manifest.source_bucket
    }

    /// When S3 began to list, if the manifest says so. Changes of the hours before may be missing, too.
    pub fn created(&self) -> Option<Timestamp> {
        let created = self.manifest.creation_timestamp.as_ref()?;
        Timestamp::from_millisecond(created.parse().ok()?).ok()
    }

    /// How many files it has.
    pub fn files(&self) -> usize {
        self.manifest.files.len()
    }

    /// Reads it as [`Bucket::pages`](crate::Bucket::pages) would have listed the bucket: what
    /// [`diff_pages`](crate::diff_pages) takes.
    ///
    /// Pages come in the order of keys, and each stretch that is asked for is a lane. Nobody promises an order of an
    /// inventory's rows, so all that are wanted are sorted, in memory up to 32 MiB, and beyond that in temporary files that
    /// vanish with the process: about 100 bytes and the key for each. Keys that the filter leaves out are counted to the
    /// first page of their stretch. Rows that are wholly the same count once.
    ///
    /// Files are fetched over several connections, ahead of the thread of the caller's tokio runtime that reads them. No
    /// page comes before all files were read and found to have the checksums of the manifest. Dropping the stream stops it
    /// all.
    ///
    /// # Errors
    ///
    /// An item that is an error is the last one: [`Error::Request`] if a file cannot be fetched or has another checksum,
    /// [`Error::Table`] if one cannot be used, is of another bucket, or has a key twice with different properties,
    /// [`Error::Spool`] if the disk refuses.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn pages(&self, options: InventoryOptions) -> BoxStream<'static, Result<Page, Error>> {
        let name = format!("the inventory of {}", self.bucket());
        let files = match self.files_of(&options) {
            Ok(files) => files,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let (format, manifest) = (self.format, self.manifest.clone());
        on_thread(name.clone(), move |sender| {
            let mut files = files;
            let meter = options.meter.as_ref().map(StageMeter::worker);
            let selection = Selection::new(options.prefix, options.filter, options.ranges);
            let mut collection = Collection::new(&selection, &options.folder);
            loop {
                let file = match &meter {
                    Some(meter) => meter.wait(Wait::Input, || files.next(sender))?,
                    None => files.next(sender)?,
                };
                let Some(file) = file else { break };
                let reader = open(&file, format, &manifest)?;
                each_batch(reader, sender, |batch| collection.add(batch).map_err(Stop::from))?;
                file.done()?;
            }
            collection.page(&name, sender, meter.as_ref())
        })
    }

    fn files_of(&self, options: &InventoryOptions) -> Result<Files, Error> {
        let files = self.manifest.files.iter();
        match &self.place {
            Place::Folder(folder) => {
                let files = files.map(|file| (folder.clone(), file.clone())).collect::<Vec<_>>();
                Ok(Files::Folder(files.into_iter()))
            }
            Place::Source(source) => {
                let (folder, temporary) = match &options.files {
                    Some(folder) => (folder.clone(), None),
                    None => {
                        let failed = |source| Error::Spool { folder: options.folder.clone(), source };
                        let temporary = tempfile::tempdir_in(&options.folder).map_err(failed)?;
                        (temporary.path().to_owned(), Some(temporary))
                    }
                };
                let plan: Vec<Request> =
                    self.manifest.files.iter().enumerate().filter_map(|(place, file)| request(place, file)).collect();
                let files = self.manifest.files.clone().into_iter();
                let mut download = download(source.clone(), plan, &folder, options.download.clone());
                let (deliver, fetched) = mpsc::channel(1);
                let location = source.clone();
                let keeps = temporary.is_none();
                tokio::spawn(async move {
                    loop {
                        let delivery = tokio::select! {
                            delivery = download.next() => delivery,
                            // The reader has given up.
                            () = deliver.closed() => break,
                        };
                        let Some(delivery) = delivery else { break };
                        let name = location.location(&delivery.request.key);
                        let staged = delivery.outcome.map(|staged| Fetched {
                            path: staged.path.clone(),
                            name,
                            remove: (!keeps).then(|| (folder.clone(), delivery.request.name.clone())),
                            staged: Some(staged),
                        });
                        if deliver.send(staged.map_err(Error::from)).await.is_err() {
                            break;
                        }
                    }
                });
                Ok(Files::Fetched { fetched, files, _temporary: temporary })
            }
        }
    }
}

/// What fetches a file.
fn request(place: usize, file: &DataFile) -> Option<Request> {
    let base = file.key.rsplit('/').next().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_safe = base.len() <= 200 && base.bytes().all(is_plain);
    let mut request = Request::new(&file.key);
    request.name = if is_safe { format!("{place:06}-{base}") } else { format!("{place:06}") };
    request.size = file.size;
    request.digests = vec![Digest::from_hex(Algorithm::Md5, &file.md5).ok()?];
    Some(request)
}

/// The data files, one after the other.
enum Files {
    Folder(std::vec::IntoIter<(PathBuf, DataFile)>),
    Fetched {
        fetched: mpsc::Receiver<Result<Fetched, Error>>,
        files: std::vec::IntoIter<DataFile>,
        _temporary: Option<TempDir>,
    },
}

/// A data file that is here, and has its checksum.
struct Fetched {
    path: PathBuf,
    /// What errors call it.
    name: String,
    /// Folder and name of what is to be removed when it was read.
    remove: Option<(PathBuf, String)>,
    /// Its disk space.
    staged: Option<bulk_core::StagedFile>,
}

impl Fetched {
    /// Compares size and content with what the manifest says.
    fn check(&self, file: &DataFile, sender: &mpsc::Sender<Result<Page, Error>>) -> Result<(), Stop> {
        // What is wrong is what is here, wherever it came from.
        let name = self.path.display().to_string();
        let failed = |error| table(&name, "it cannot be read", Some(error));
        let mut input = File::open(&self.path).map_err(failed)?;
        let mut hasher = Hasher::new(&[Algorithm::Md5]);
        let (mut buffer, mut size) = (vec![0; 256 << 10], 0);
        loop {
            if sender.is_closed() {
                return Err(Stop::Dropped);
            }
            match input.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        if let Some(wanted) = file.size.filter(|wanted| *wanted != size) {
            let what = format!("it has {}, and by the manifest {wanted}", counted(size, "byte", "bytes"));
            return Err(table(&name, what, None).into());
        }
        let wanted = format!("md5:{}", file.md5.to_ascii_lowercase());
        let found = hasher.finish().first().map(ToString::to_string).unwrap_or_default();
        if found != wanted {
            let what = format!("its content is {found}, and must be {wanted}, by the manifest");
            return Err(table(&name, what, None).into());
        }
        Ok(())
    }

    fn done(self) -> Result<(), Error> {
        Ok(self.remove.map_or(Ok(()), |(folder, name)| remove_staged(folder, &name))?)
    }
}

impl Files {
    fn next(&mut self, sender: &mpsc::Sender<Result<Page, Error>>) -> Result<Option<Fetched>, Stop> {
        match self {
            Self::Folder(files) => match files.next() {
                Some((folder, file)) => find(&folder, &file, sender).map(Some),
                None => Ok(None),
            },
            Self::Fetched { fetched, files, .. } => {
                let Some(file) = files.next() else { return Ok(None) };
                let next = async {
                    tokio::select! {
                        file = fetched.recv() => Ok(file),
                        () = sender.closed() => Err(Stop::Dropped),
                    }
                };
                // This is a thread for what waits.
                let next = Handle::current().block_on(next)?;
                let interrupted = || bulk_core::Error::Interrupted { location: "the inventory".to_owned() };
                let fetched = next.ok_or_else(interrupted).map_err(Error::from)??;
                // What an earlier run has left was not looked at.
                if fetched.staged.as_ref().is_some_and(|staged| staged.fetched < staged.size) {
                    fetched.check(&file, sender)?;
                }
                Ok(Some(fetched))
            }
        }
    }
}

/// A file of an inventory that was copied to `folder`.
fn find(folder: &Path, file: &DataFile, sender: &mpsc::Sender<Result<Page, Error>>) -> Result<Fetched, Stop> {
    let base = file.key.rsplit('/').next().unwrap_or_default();
    let manifest = folder.join("manifest.json").display().to_string();
    if matches!(base, "" | "." | "..") || base.contains(['\\', ':']) {
        return Err(table(&manifest, format!("{:?} is no name of a file", file.key), None).into());
    }
    let places = [folder.join(base), folder.join("data").join(base), folder.join("../data").join(base)];
    let Some(path) = places.into_iter().find(|path| path.is_file()) else {
        let what = format!("there is no {base} beside it, nor in data there, nor in data beside its folder");
        return Err(table(&manifest, what, None).into());
    };
    let name = path.display().to_string();
    let fetched = Fetched { path, name, remove: None, staged: None };
    fetched.check(file, sender)?;
    Ok(fetched)
}

fn open(file: &Fetched, format: Format, manifest: &Manifest) -> Result<Box<dyn ObjectReader>, Error> {
    match format {
        Format::Csv => {
            let failed = |error| table(&file.name, "it cannot be read", Some(error));
            let input = BufReader::with_capacity(64 << 10, File::open(&file.path).map_err(failed)?);
            let input = MultiGzDecoder::new(input);
            Ok(Box::new(InventoryReader::new(&file.name, input, &manifest.file_schema, &manifest.source_bucket)?))
        }
        Format::Parquet => parquet(file, &manifest.source_bucket),
    }
}

#[cfg(feature = "parquet")]
fn parquet(file: &Fetched, bucket: &str) -> Result<Box<dyn ObjectReader>, Error> {
    Ok(Box::new(crate::ParquetReader::open_inventory(&file.path, file.name.clone(), bucket)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet(file: &Fetched, _: &str) -> Result<Box<dyn ObjectReader>, Error> {
    // A manifest that says so was refused.
    Err(table(&file.name, "it is Parquet", None))
}
