//! Writes the plain bytes of a compressed file to standard output: `decode FILE [THREADS] > out`.
//!
//! The codec is found by the content. `THREADS` is the number of threads that decode bzip2 blocks, by default all
//! processors. Ends with status 1 and a line on standard error where the file is cut short or damaged.

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
};

use bulk_archive::{DecodeOptions, Decoder};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let file = arguments.next().ok_or("usage: decode FILE [THREADS] > out")?;
    let mut options = DecodeOptions::default();
    if let Some(threads) = arguments.next() {
        options.threads = threads.parse()?;
    }
    let mut decoder = Decoder::open(&file, &options)?;
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match decoder.read(&mut buffer)? {
            0 => return Ok(out.flush()?),
            n => out.write_all(&buffer[..n])?,
        }
    }
}
