use std::io::{self, Read};

use liblzma::{
    bufread::XzDecoder,
    stream::{CONCATENATED, Stream},
};

use crate::{Codec, Error, input::Input};

/// `xz -9` needs 65 MiB; a dictionary beyond this is taken for an attack.
const MEMORY_LIMIT: u64 = 1 << 30;

/// The streams of an xz file, one after another.
pub(crate) struct Reader {
    streams: XzDecoder<Input>,
}

impl Reader {
    pub(crate) fn new(input: Input) -> Result<Reader, Error> {
        match Stream::new_stream_decoder(MEMORY_LIMIT, CONCATENATED) {
            Ok(stream) => Ok(Reader { streams: XzDecoder::new_stream(input, stream) }),
            Err(error) => Err(Error::Io {
                file: input.file().to_string(),
                offset: Some(0),
                source: io::Error::new(io::ErrorKind::OutOfMemory, error),
            }),
        }
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let read = self.streams.read(into);
        read.map_err(|error| {
            let input = self.streams.get_ref();
            Error::from_codec(error, input.file(), Codec::Xz, input.offset())
        })
    }
}
