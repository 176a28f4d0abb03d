//! Writes the plain bytes of a compressed file to standard output: `decode FILE [THREADS] > out`.
//!
//! The codec is found by the content. `THREADS` is the number of threads that decode bzip2 blocks, by default all
//! processors. Ends with status 1 and a line on standard error where the file is cut short or damaged.
//!
//! # How to compare it with lbzip2
//! Compress something of 100 MB or more with `lbzip2 -9` and build with `cargo build --release --example decode`. Run
//! `lbzip2 -d -c -n2 FILE > /dev/null` and `decode FILE 2 > /dev/null` by turns under `/usr/bin/time -v`, at least five
//! times each. Compare the least elapsed time of the one with the least of the other, for whatever else runs only
//! ever adds to it. The least user time, which depends less on what else runs, should be in the same ratio; the largest
//! maximum resident set size is what memory it takes. Do so with files of different kinds, since text spends its time
//! in the inverse Burrows-Wheeler transform, and what hardly compresses in the prefix codes. That the output is right
//! shows `decode FILE 2 | cmp - PLAIN`.

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
