use std::io::{BufRead, Read};

use flate2::bufread::GzDecoder;

use crate::{Codec, Error, input::Input};

/// The members of a gzip file, one after another.
///
/// The members are driven here and not by `MultiGzDecoder`, which takes zero padding after the last one for a damaged
/// header; tapes and block devices add such padding, and `gzip` accepts it.
pub(crate) struct Reader<S = Box<dyn Read + Send>> {
    /// The member at hand, or none after the last.
    member: Option<GzDecoder<Input<S>>>,
}

impl<S: Read> Reader<S> {
    pub(crate) fn new(input: Input<S>) -> Reader<S> {
        Reader { member: Some(GzDecoder::new(input)) }
    }

    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        while let Some(member) = &mut self.member {
            let read = member.read(into);
            let n = read.map_err(|error| failed(error, member.get_ref()))?;
            if n > 0 {
                return Ok(n);
            }
            self.member = match self.member.take() {
                Some(member) => next_member(member.into_inner())?,
                None => None,
            };
        }
        Ok(0)
    }
}

/// Goes on after the end of a member: to the next one, or over zeros to the end of the input.
fn next_member<S: Read>(mut input: Input<S>) -> Result<Option<GzDecoder<Input<S>>>, Error> {
    let mut padded = false;
    loop {
        let rest = match input.fill_buf() {
            Ok(rest) => rest,
            Err(error) => return Err(failed(error, &input)),
        };
        let zeros = rest.iter().take_while(|&&byte| byte == 0).count();
        match rest.get(zeros) {
            Some(0x1f) if zeros == 0 && !padded => return Ok(Some(GzDecoder::new(input))),
            Some(_) => {
                return Err(Error::Corrupt {
                    file: input.file().to_string(),
                    codec: Codec::Gzip,
                    offset: input.offset() + zeros as u64,
                    reason: "bytes after the last member that belong to none".to_owned(),
                });
            }
            None if zeros == 0 => return Ok(None),
            None => {
                padded = true;
                input.consume(zeros);
            }
        }
    }
}

fn failed<S: Read>(error: std::io::Error, input: &Input<S>) -> Error {
    Error::from_codec(error, input.file(), Codec::Gzip, input.offset())
}
