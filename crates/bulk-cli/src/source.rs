use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulk_core::{FileSource, RetryPolicy, Source};
use bulk_s3::{Bucket, BucketOptions, Credentials, Object};
use futures::TryStreamExt;

use crate::arguments::BucketArguments;
use crate::exit::{Exit, Failure};
use crate::report::Report;

/// A place with files: it lists them, and is the source that fetches them.
pub(crate) enum Place {
    Bucket { bucket: Box<Bucket>, prefix: String },
    Folder(PathBuf),
}

impl Place {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub(crate) fn open(source: &str, arguments: &BucketArguments, report: &Report) -> Result<Self, Failure> {
        Self::open_with(source, arguments, RetryPolicy::default(), report)
    }

    /// As [`open`](Self::open), with other patience.
    pub(crate) fn open_with(
        source: &str,
        arguments: &BucketArguments,
        retry: RetryPolicy,
        report: &Report,
    ) -> Result<Self, Failure> {
        if let Some(path) = source.strip_prefix("file://") {
            return Ok(Self::Folder(PathBuf::from(path)));
        }
        let Some(rest) = source.strip_prefix("s3://") else {
            // The rest of it may hold a password.
            let scheme = source.split("://").next().unwrap_or_default();
            return Err(Failure::usage(format!(
                "a source is s3://bucket/prefix or file:///folder, and not {scheme}://…"
            )));
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let mut options = BucketOptions::default();
        options.endpoint.clone_from(&arguments.endpoint);
        options.region.clone_from(&arguments.region);
        if !arguments.anonymous {
            options.credentials = Credentials::Environment;
        }
        options.retry = retry;
        let report = report.clone();
        options.observer = Arc::new(move |event: &bulk_core::Event<'_>| report.on_download(event));
        Ok(Self::Bucket { bucket: Box::new(Bucket::new(name, options)?), prefix: prefix.to_owned() })
    }

    /// Refuses a folder for fetched files that is the very place they come from: a file would be replaced by its copy, and
    /// removed with it.
    pub(crate) fn refuse_folder(&self, flag: &str, folder: &Path) -> Result<(), Failure> {
        let Self::Folder(source) = self else { return Ok(()) };
        // One that is not there yet is another one.
        match (source.canonicalize(), folder.canonicalize()) {
            (Ok(source), Ok(folder)) if source == folder => Err(Failure::usage(format!(
                "{flag} {}: the files come from that folder; name another one for their copies",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }

    /// All objects.
    pub(crate) async fn list(&self) -> Result<Vec<Object>, Failure> {
        match self {
            Self::Bucket { bucket, prefix } => Ok(bucket.list(prefix).try_collect().await?),
            Self::Folder(folder) => list_folder(folder),
        }
    }

    /// The part of a key below the prefix's last `/`.
    pub(crate) fn name<'a>(&self, key: &'a str) -> &'a str {
        let Self::Bucket { prefix, .. } = self else { return key };
        let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]);
        key.strip_prefix(folder).unwrap_or(key)
    }

    pub(crate) fn source(&self) -> Arc<dyn Source> {
        match self {
            Self::Bucket { bucket, .. } => Arc::new(Bucket::clone(bucket)),
            Self::Folder(folder) => Arc::new(FileSource::new(folder)),
        }
    }

    pub(crate) fn location(&self) -> String {
        match self {
            Self::Bucket { bucket, prefix } => format!("s3://{}/{prefix}", bucket.name()),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

/// The files of a folder, in the order of their names. A file's identity is its size and its time.
fn list_folder(folder: &Path) -> Result<Vec<Object>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Failed, anyhow::anyhow!("cannot list {}: {error}", folder.display()))
    };
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if metadata.is_file() {
            let mut object = Object::new(name, metadata.len());
            object.last_modified = metadata.modified().ok().and_then(|time| time.try_into().ok());
            objects.push(object);
        }
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}
