use std::io::Read;

use crate::{Codec, Error, input::Input};

/// The frames of a Zstandard file, one after another.
pub(crate) struct Reader {
    frames: zstd::Decoder<'static, Input>,
}

impl Reader {
    pub(crate) fn new(input: Input) -> Result<Reader, Error> {
        let file = input.file().clone();
        let frames = zstd::Decoder::with_buffer(input).map_err(|source| Error::Io {
            file: file.to_string(),
            offset: Some(0),
            source,
        })?;
        Ok(Reader { frames })
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let read = self.frames.read(into);
        read.map_err(|error| {
            let input = self.frames.get_ref();
            Error::from_codec(error, input.file(), Codec::Zstd, input.offset())
        })
    }
}
