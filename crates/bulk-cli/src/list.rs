use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bulk_s3::{Batch, CsvWriter, NdjsonWriter, ObjectWriter, Page, ParquetWriter, in_order};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tempfile::NamedTempFile;

use crate::arguments::{Common, List, ListFormat};
use crate::exit::{Exit, Failure};
use crate::keys::{Keys, Listed};
use crate::report::Report;

pub(crate) async fn run(list: &List, common: &Common, report: &Report) -> Result<Exit, Failure> {
    if common.json && list.out.is_none() {
        return Err(Failure::usage("--json has standard output for its events: --out FILE is for the keys"));
    }
    if list.format == ListFormat::Parquet && list.out.is_none() {
        return Err(Failure::usage("--format parquet needs --out FILE"));
    }
    let mut listed = Listed::new();
    let mut pages = pages(list, report)?;
    if common.dry_run {
        report.planned(&format!("list {}", list.source), serde_json::json!({"source": list.source}));
        return Ok(Exit::Done);
    }
    let mut output = Output::open(list)?;
    let mut found = 0;
    loop {
        let Some(page) = common.stop.run_until_cancelled(pages.try_next()).await else {
            return Ok(Exit::Interrupted);
        };
        let Some(page) = page? else { break };
        listed.add(page.keys);
        found += page.objects.len() as u64;
        match tokio::task::block_in_place(|| output.write(&page.objects)) {
            Ok(()) => {}
            // Whoever read it has enough.
            Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
            Err(error) => return Err(error.into()),
        }
        listed.tell(found, "of them meant", report);
    }
    match tokio::task::block_in_place(|| output.finish()) {
        Err(error) if is_closed_pipe(&error) => return Ok(Exit::Done),
        finished => finished.map_err(Failure::from)?,
    }
    listed.end(found, "of them meant", report);
    Ok(Exit::Done)
}

fn pages(list: &List, report: &Report) -> Result<BoxStream<'static, Result<Page, bulk_s3::Error>>, Failure> {
    let keys = Keys::open(&list.source, &list.bucket, &list.keys, report)?;
    let options = keys.list_options(vec![bulk_s3::KeyRange::all()]);
    let ranges = options.ranges.clone();
    let pages = keys.bucket.pages(options);
    Ok(if list.unsorted { pages.boxed() } else { in_order(pages, &ranges, &std::env::temp_dir()) })
}

/// Where objects go.
struct Output {
    writer: Writer,
    /// The file under its temporary name, and the one that it gets.
    file: Option<(NamedTempFile, std::path::PathBuf)>,
}

enum Writer {
    Ndjson(NdjsonWriter<Sink>),
    Csv(CsvWriter<Sink>),
    Parquet(Box<ParquetWriter<Sink>>),
}

type Sink = BufWriter<Box<dyn Write + Send>>;

impl Output {
    fn open(list: &List) -> Result<Self, Failure> {
        let bucket = list.source.strip_prefix("s3://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let (name, sink, file) = match &list.out {
            None => ("standard output".to_owned(), Box::new(io::stdout()) as Box<dyn Write + Send>, None),
            Some(path) => {
                let (part, file) = part_of(path)?;
                (path.display().to_string(), Box::new(file) as Box<dyn Write + Send>, Some((part, path.clone())))
            }
        };
        let sink = BufWriter::with_capacity(1 << 16, sink);
        let writer = match list.format {
            ListFormat::Ndjson => Writer::Ndjson(NdjsonWriter::new(&name, sink)),
            ListFormat::Csv => Writer::Csv(CsvWriter::new(&name, sink, bucket)?),
            ListFormat::Parquet => Writer::Parquet(Box::new(ParquetWriter::new(&name, sink, bucket)?)),
        };
        Ok(Self { writer, file })
    }

    fn write(&mut self, objects: &Batch) -> Result<(), bulk_s3::Error> {
        match &mut self.writer {
            Writer::Ndjson(writer) => writer.write(objects),
            Writer::Csv(writer) => writer.write(objects),
            Writer::Parquet(writer) => writer.write(objects),
        }
    }

    /// Writes what is left, and gives the file its name.
    fn finish(self) -> Result<(), bulk_s3::Error> {
        let mut sink = match self.writer {
            Writer::Ndjson(writer) => writer.finish()?,
            Writer::Csv(writer) => writer.finish()?,
            Writer::Parquet(writer) => writer.finish()?,
        };
        let name = self.file.as_ref().map_or("standard output".to_owned(), |(_, path)| path.display().to_string());
        let failed = |source: io::Error| bulk_s3::Error::Table {
            file: name.clone(),
            row: None,
            byte: None,
            what: "it cannot be written".to_owned(),
            source: Some(Box::new(source)),
        };
        sink.flush().map_err(failed)?;
        if let Some((part, path)) = self.file {
            part.as_file().sync_all().map_err(failed)?;
            part.persist(&path).map_err(|error| failed(error.error))?;
        }
        Ok(())
    }
}

/// A file beside `path` that is to get its name, and a handle to write to it.
pub(crate) fn part_of(path: &Path) -> Result<(NamedTempFile, File), Failure> {
    let failed = |error: io::Error| Failure::usage(format!("cannot write {}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // Such as any other file gets: the process's mask applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let part = builder.prefix(".bulk-part-").tempfile_in(folder).map_err(failed)?;
    let file = part.reopen().map_err(failed)?;
    Ok((part, file))
}

/// Whether a reader of standard output has gone.
fn is_closed_pipe(error: &bulk_s3::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}
