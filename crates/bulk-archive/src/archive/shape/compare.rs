use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Shape, lines::one_line, rows};
use crate::{DecodeOptions, Decoder, Error, archive::reader::ArchiveReader};

/// Reads a shape and the archive that it was made from, and compares their items. `go_on` may end it.
///
/// # Errors
/// [`Error::Set`] where they differ; those of [`Decoder`] and [`ArchiveReader`]; those of `go_on`.
pub(crate) fn compare(
    shape: Shape,
    path: &Path,
    archive: &mut ArchiveReader<impl Read>,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    match shape {
        Shape::JsonlGz | Shape::JsonlZst => compare_lines(path, archive, go_on),
        Shape::Parquet => compare_rows(path, archive, go_on),
    }
}

fn differs(path: &Path, id: Option<&str>) -> Error {
    let reason = match id {
        Some(id) => format!("it differs from the archive at the item {id:?}"),
        None => "it has more than the archive".to_owned(),
    };
    Error::Set { file: path.display().to_string(), reason }
}

fn compare_lines(
    path: &Path,
    archive: &mut ArchiveReader<impl Read>,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| Error::Io { file: name.clone(), offset: None, source })?;
    let failed = |error: io::Error| {
        error.downcast().unwrap_or_else(|source| Error::Io { file: name.clone(), offset: None, source })
    };
    let mut lines = io::BufReader::with_capacity(128 * 1024, Decoder::new(file, &name, &DecodeOptions::default())?);
    let mut line = Vec::new();
    while let Some(item) = archive.next_item()? {
        go_on()?;
        line.clear();
        lines.by_ref().take(item.content.len() as u64).read_to_end(&mut line).map_err(failed)?;
        let is_same = line.iter().copied().eq(item.content.iter().map(|&byte| one_line(byte)));
        // Spaces may follow, up to the line's end.
        let mut end = [b' '];
        while is_same && end == *b" " && lines.read(&mut end).map_err(failed)? > 0 {}
        if !is_same || end != *b"\n" {
            return Err(differs(path, Some(item.id)));
        }
    }
    if lines.read(&mut [0]).map_err(failed)? > 0 { Err(differs(path, None)) } else { Ok(()) }
}

fn compare_rows(
    path: &Path,
    archive: &mut ArchiveReader<impl Read>,
    go_on: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    use parquet::file::reader::FileReader;

    let reader = rows::open(path)?;
    for number in 0..reader.num_row_groups() {
        go_on()?;
        let rows =
            rows::read(&reader, number).map_err(|error| rows::unreadable(&path.display().to_string(), &error))?;
        for ((id, modified), json) in rows.ids.iter().zip(&rows.modified).zip(&rows.json) {
            let Some(item) = archive.next_item()? else { return Err(differs(path, None)) };
            let expected = (item.id.as_bytes(), rows::millis(item.mtime), item.content);
            if (id.data(), *modified, json.data()) != expected {
                return Err(differs(path, Some(item.id)));
            }
        }
    }
    match archive.next_item()? {
        Some(item) => Err(differs(path, Some(item.id))),
        None => Ok(()),
    }
}
