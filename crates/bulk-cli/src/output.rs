//! Where objects are written as rows.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bulk_s3::{Batch, CsvWriter, NdjsonWriter, ObjectWriter, ParquetWriter};

use crate::arguments::{ListFormat, OutputArguments};
use crate::exit::{Exit, Failure};
use crate::new_file::NewFile;

/// What rows are written to.
pub(crate) type Bytes = BufWriter<Box<dyn Write + Send>>;

/// Standard output, or a file that gets its name when it is whole.
pub(crate) struct Destination {
    name: String,
    file: Option<NewFile>,
}

impl Destination {
    pub(crate) async fn open(out: Option<&Path>) -> Result<(Self, Bytes), Failure> {
        let (destination, bytes) = match out {
            None => (Self::stdout(), Box::new(io::stdout()) as Box<dyn Write + Send>),
            Some(path) if is_device(path)? => {
                // It is there already, and is written to. Whoever reads a pipe may not have come yet, and Ctrl-C is to be heard
                // as long as that takes.
                let device = path.to_owned();
                let opened = tokio::task::spawn_blocking(move || File::options().write(true).open(device)).await;
                let opened = opened.map_err(|error| Failure::new(Exit::Failed, error))?;
                let file = opened.map_err(|error| cannot_write(path, &error))?;
                (Self { name: path.display().to_string(), file: None }, Box::new(file) as Box<dyn Write + Send>)
            }
            Some(path) => {
                let failed = |error: io::Error| cannot_write(path, &error);
                let file = NewFile::create(path).map_err(failed)?;
                let handle = file.handle().map_err(failed)?;
                let destination = Self { name: path.display().to_string(), file: Some(file) };
                (destination, Box::new(handle) as Box<dyn Write + Send>)
            }
        };
        Ok((destination, BufWriter::with_capacity(1 << 16, bytes)))
    }

    pub(crate) fn stdout() -> Self {
        Self { name: "standard output".to_owned(), file: None }
    }

    /// Says in which file something went wrong.
    pub(crate) fn failed(&self, source: io::Error) -> bulk_s3::Error {
        bulk_s3::Error::Table {
            file: self.name.clone(),
            row: None,
            byte: None,
            what: "it cannot be written".to_owned(),
            source: Some(Box::new(source)),
        }
    }

    /// Writes what is left, and gives the file its name.
    pub(crate) fn finish(mut self, mut bytes: Bytes) -> Result<(), bulk_s3::Error> {
        bytes.flush().map_err(|error| self.failed(error))?;
        match self.file.take() {
            Some(file) => file.keep().map_err(|error| self.failed(error)),
            None => Ok(()),
        }
    }
}

/// Writes objects in one of the formats.
pub(crate) enum Rows {
    Ndjson(NdjsonWriter<Bytes>),
    Csv(CsvWriter<Bytes>),
    Parquet(Box<ParquetWriter<Bytes>>),
}

impl Rows {
    /// Opens what the flags name, for objects of this bucket.
    pub(crate) async fn open(arguments: &OutputArguments, bucket: &str) -> Result<(Destination, Self), Failure> {
        let (destination, bytes) = Destination::open(arguments.out.as_deref()).await?;
        let name = &destination.name;
        let rows = match format(arguments) {
            ListFormat::Ndjson => Self::Ndjson(NdjsonWriter::new(name, bytes)),
            ListFormat::Csv => Self::Csv(CsvWriter::new(name, bytes, bucket)?),
            ListFormat::Parquet => Self::Parquet(Box::new(ParquetWriter::new(name, bytes, bucket)?)),
        };
        Ok((destination, rows))
    }
}

impl ObjectWriter for Rows {
    type Output = Bytes;

    fn write(&mut self, objects: &Batch) -> Result<(), bulk_s3::Error> {
        match self {
            Self::Ndjson(writer) => writer.write(objects),
            Self::Csv(writer) => writer.write(objects),
            Self::Parquet(writer) => writer.write(objects),
        }
    }

    fn finish(self) -> Result<Bytes, bulk_s3::Error> {
        match self {
            Self::Ndjson(writer) => writer.finish(),
            Self::Csv(writer) => writer.finish(),
            Self::Parquet(writer) => writer.finish(),
        }
    }
}

/// In which format objects are written: as it is said, else as the file's name has it.
pub(crate) fn format(arguments: &OutputArguments) -> ListFormat {
    let extension = || arguments.out.as_ref()?.extension()?.to_str().map(str::to_ascii_lowercase);
    arguments.format.unwrap_or_else(|| match extension().as_deref() {
        Some("csv") => ListFormat::Csv,
        Some("parquet") => ListFormat::Parquet,
        _ => ListFormat::Ndjson,
    })
}

/// Refuses what cannot be written to standard output.
pub(crate) fn check(arguments: &OutputArguments, is_json: bool) -> Result<(), Failure> {
    if is_json && arguments.out.is_none() {
        return Err(Failure::usage("--json has standard output for its events: --out FILE is for the keys"));
    }
    if format(arguments) == ListFormat::Parquet && arguments.out.is_none() {
        return Err(Failure::usage("--format parquet needs --out FILE"));
    }
    Ok(())
}

fn cannot_write(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("cannot write {}: {why}", path.display()))
}

/// Whether it is a pipe or a device, which must not be replaced by a file.
fn is_device(path: &Path) -> Result<bool, Failure> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(cannot_write(path, &"it is a folder; name a file")),
        Ok(found) => Ok(!found.is_file()),
        // If it cannot be written either, that is said then.
        Err(_) => Ok(false),
    }
}

/// Whether it says that a reader of standard output has gone.
pub(crate) fn is_closed_pipe(failure: &Failure) -> bool {
    let is_closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    failure.error.chain().any(|cause| cause.downcast_ref().is_some_and(is_closed))
}
