use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};

use super::{
    Shape,
    columns::ParquetColumns,
    lines::one_line,
    rows::{self, Rows},
};
use crate::{DecodeOptions, Decoder, Error, archive::reader::ArchiveReader};

/// A shape that is read and compared with the archives that it was made from.
pub(crate) struct Comparison {
    name: String,
    content: Content,
}

enum Content {
    Lines(io::BufReader<Decoder>),
    Rows(RowReader),
}

/// Rows in their order.
struct RowReader {
    reader: SerializedFileReader<File>,
    /// As the file itself says.
    columns: ParquetColumns,
    is_whole: bool,
    /// The number of the row group behind the one at hand.
    next: usize,
    rows: Rows,
    /// How many of those at hand were compared, and of each column how many values.
    compared: usize,
    values: Vec<usize>,
}

impl Comparison {
    /// Opens a shape; `is_whole`: that of a type.
    ///
    /// # Errors
    /// Those of [`Decoder`]; [`Error::Set`] for Parquet that is none; [`Error::Io`].
    pub(crate) fn open(shape: Shape, path: &Path, is_whole: bool) -> Result<Comparison, Error> {
        let name = path.display().to_string();
        let content = match shape {
            Shape::JsonlGz | Shape::JsonlZst => {
                let file = File::open(path).map_err(|source| Error::Io { file: name.clone(), offset: None, source })?;
                let decoder = Decoder::new(file, &name, &DecodeOptions::default())?;
                Content::Lines(io::BufReader::with_capacity(128 * 1024, decoder))
            }
            Shape::Parquet => {
                let reader = rows::open(path)?;
                let reason = "it was made by an earlier version, and does not say what its columns are; the next export makes it anew";
                let unknown = || Error::Set { file: name.clone(), reason: reason.to_owned() };
                let columns = rows::columns_of(&reader).ok_or_else(unknown)?;
                let rows = Rows::default();
                Content::Rows(RowReader { reader, columns, is_whole, next: 0, rows, compared: 0, values: vec![] })
            }
        };
        Ok(Comparison { name, content })
    }

    /// Compares what comes next with the items of an archive, which is that of this group. `go_on` may end it.
    ///
    /// # Errors
    /// [`Error::Set`] where they differ; those of [`Decoder`] and [`ArchiveReader`]; those of `go_on`.
    pub(crate) fn compare(
        &mut self,
        archive: &mut ArchiveReader<impl Read>,
        group: &str,
        go_on: impl Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut line = Vec::new();
        while let Some(item) = archive.next_item()? {
            go_on()?;
            let is_same = match &mut self.content {
                Content::Lines(lines) => {
                    is_next_line(lines, &mut line, item.content).map_err(|error| failed(&self.name, error))?
                }
                Content::Rows(rows) => rows.is_next((item.id, item.mtime, item.content), group, &self.name)?,
            };
            if !is_same {
                let reason = format!("it differs from the archive at the item {:?}", item.id);
                return Err(Error::Set { file: self.name.clone(), reason });
            }
        }
        Ok(())
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// [`Error::Set`] where something is; those of [`Decoder`].
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        let has_more = match &mut self.content {
            Content::Lines(lines) => lines.read(&mut [0]).map_err(|error| failed(&self.name, error))? > 0,
            Content::Rows(rows) => rows.fill(&self.name)?,
        };
        if !has_more {
            return Ok(());
        }
        Err(Error::Set { file: self.name, reason: "it has more than the archive".to_owned() })
    }
}

fn failed(file: &str, error: io::Error) -> Error {
    error.downcast().unwrap_or_else(|source| Error::Io { file: file.to_owned(), offset: None, source })
}

/// Whether the next line is that of an item. Spaces may follow, up to the line's end.
fn is_next_line(lines: &mut impl Read, line: &mut Vec<u8>, content: &[u8]) -> io::Result<bool> {
    line.clear();
    lines.by_ref().take(content.len() as u64).read_to_end(line)?;
    let is_same = line.iter().copied().eq(content.iter().map(|&byte| one_line(byte)));
    let mut end = [b' '];
    while is_same && end == *b" " && lines.read(&mut end)? > 0 {}
    Ok(is_same && end == *b"\n")
}

impl RowReader {
    /// Whether there is a row at hand.
    fn fill(&mut self, name: &str) -> Result<bool, Error> {
        while self.compared == self.rows.len {
            if self.next == self.reader.num_row_groups() {
                return Ok(false);
            }
            self.rows = rows::read(&self.reader, self.next, &self.columns, self.is_whole)
                .map_err(|error| rows::unreadable(name, &error))?;
            (self.next, self.compared) = (self.next + 1, 0);
            self.values = vec![0; self.rows.columns.len()];
        }
        Ok(true)
    }

    /// Whether the next row is that of an item, and of this group.
    fn is_next(&mut self, item: (&str, i64, &[u8]), group: &str, name: &str) -> Result<bool, Error> {
        if !self.fill(name)? {
            return Ok(false);
        }
        let RowReader { columns, rows, compared, values, .. } = self;
        let row = *compared;
        *compared += 1;
        let mut is_same = rows.groups.as_ref().is_none_or(|groups| groups[row].data() == group.as_bytes());
        let fits = columns.cells(item, |at, cell| {
            is_same &= rows.columns[at].is(row, cell.as_ref(), &mut values[at]);
        });
        Ok(fits.is_ok() && is_same)
    }
}
