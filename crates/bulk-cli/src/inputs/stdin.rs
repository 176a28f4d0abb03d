use std::io::{self, Cursor, IsTerminal, Read};

use bulk_archive::{Codec, DecodeOptions, Decoder};
use bulk_core::{Wait, WorkerMeter};
use bulk_pg::FileIdentity;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::meters::Origin;
use crate::report::Report;

/// What messages call it.
pub(super) const NAME: &str = "standard input";
/// The keys of what has no name of its own begin so, each with another time behind it.
pub(super) const UNNAMED: &str = "stdin of ";

/// Bytes that are read at once, and how many such pieces wait to be decoded.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// What tells it from others in the ledger: its name, which the caller vouches for, or that it is like no other.
pub(super) fn identity(name: Option<&str>) -> FileIdentity {
    match name {
        Some(name) => FileIdentity::new(format!("stdin:{name}"), None, 0),
        None => FileIdentity::new(format!("{UNNAMED}{}", Timestamp::now()), None, 0),
    }
}

/// Standard input, decoded. It can be read once.
pub(crate) async fn open(stop: &CancellationToken, decode: DecodeOptions, report: &Report) -> Result<Decoder, Failure> {
    if io::stdin().is_terminal() {
        report.warn("reading standard input, which is the terminal: end it with Ctrl-D");
    }
    let meters = report.meters();
    let mut reader = Pieces::start(stop, meters.stdin()).map_err(|error| Failure::of_read(NAME, error))?;
    let meters = meters.clone();
    let decoder = tokio::task::spawn_blocking(move || {
        let mut head = Vec::new();
        Read::take(&mut reader, Codec::HEAD_LEN as u64).read_to_end(&mut head)?;
        let options = meters.decode_options(Origin::Stdin, Codec::detect(&head), decode);
        Ok(Decoder::new(Cursor::new(head).chain(reader), NAME, &options)?)
    });
    let decoder = decoder.await.map_err(|error| Failure::new(Exit::Failed, error))?;
    decoder.map_err(|error: io::Error| Failure::of_read(NAME, error))
}

/// Standard input, which a thread of its own reads: no read of it can be broken off, and whoever waits for it must be
/// told to stop.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    is_at_end: bool,
}

impl Pieces {
    fn start(stop: &CancellationToken, meter: WorkerMeter) -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(PIECES);
        let (stop, stopped) = (stop.clone(), sender.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {
                    let error = bulk_core::Error::Interrupted { location: NAME.to_owned() };
                    let _ = stopped.send(Err(io::Error::other(error))).await;
                }
                () = stopped.closed() => {}
            }
        });
        // It ends with the program, if nothing comes any more.
        std::thread::Builder::new().name("bulk-stdin".to_owned()).spawn(move || read_pieces(&sender, &meter))?;
        Ok(Self { pieces, piece: Cursor::default(), is_at_end: false })
    }
}

/// Sends what comes, and nothing at the end, until nobody wants more.
fn read_pieces(sender: &mpsc::Sender<io::Result<Vec<u8>>>, meter: &WorkerMeter) {
    let mut stdin = io::stdin().lock();
    loop {
        let mut piece = vec![0; PIECE];
        let read = meter.wait(Wait::Server, || stdin.read(&mut piece));
        meter.add(1, *read.as_ref().unwrap_or(&0) as u64);
        let is_last =
            !matches!(&read, Ok(1..)) && !matches!(&read, Err(error) if error.kind() == io::ErrorKind::Interrupted);
        if is_last || read.is_ok() {
            let piece = read.map(|read| {
                piece.truncate(read);
                piece
            });
            if meter.wait(Wait::Output, || sender.blocking_send(piece)).is_err() || is_last {
                return;
            }
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_at_end {
            return Ok(0);
        }
        loop {
            match self.piece.read(buffer)? {
                0 => {}
                read => return Ok(read),
            }
            let piece = self.pieces.blocking_recv().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into()))?;
            if piece.is_empty() {
                self.is_at_end = true;
                return Ok(0);
            }
            self.piece = Cursor::new(piece);
        }
    }
}
