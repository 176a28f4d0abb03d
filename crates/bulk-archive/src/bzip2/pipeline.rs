use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{
    block::{Block, BlockDecoder},
    column::Rejected,
    scan::{Magic, Opening, Scanner, Segment},
    trusted::{Checked, Fault, TrustedDecoder},
};
use crate::{
    Checkpoint,
    decode_event::{Observer, Watch},
    input::Input,
};

/// How much output is handed over at once: a block of run-length coded zeros grows to 46 MB.
pub(super) const PIECE_LEN: usize = 256 * 1024;

/// How many pieces of a block may wait for the reader. An ordinary block of 900 kB fits in whole, so that its worker
/// can go on to the next.
const PIECES_AHEAD: usize = 4;

/// The threads that work ahead of the reader: one cuts the input into segments, the others decode those that look like
/// blocks.
///
/// Both queues are bounded, and nothing waits in a circle: workers take segments in the order of the file, so the
/// segment that the reader is at has a worker, which waits for nobody but the reader.
///
/// Dropping it stops the threads, without waiting for them.
pub(super) struct Pipeline {
    items: Receiver<Item>,
    pieces: Pieces,
    stopped: Arc<AtomicBool>,
    jump: Jump,
}

/// Where the reader wants to go on, until the thread that reads the input has seen it.
type Jump = Arc<Mutex<Option<Checkpoint>>>;

/// What the reader gets, in the order of the file.
pub(super) enum Item {
    /// A segment.
    Segment(Offer),
    /// What lies before this place is left out; segments from there on follow.
    Jumped(Checkpoint),
    /// The input has ended.
    End,
    /// The input has failed, or no thread could be started.
    Failed(io::Error),
}

/// A segment, with what a worker makes of it if it looks like a block.
pub(super) struct Offer {
    pub(super) segment: Arc<Segment>,
    pub(super) parts: Option<Receiver<Part>>,
}

/// What comes of a block, in order. A channel that ends without one of the last three belongs to a worker that is gone.
pub(super) enum Part {
    /// Some of its output. Its CRC was right.
    Piece(Vec<u8>),
    /// It has ended where its segment does; this is its CRC.
    Done(u32),
    /// It has not ended with its segment.
    Unfinished(Box<TrustedDecoder>),
    /// It cannot be decoded.
    Fault(Fault),
}

struct Job {
    segment: Arc<Segment>,
    parts: Sender<Part>,
}

impl Pipeline {
    /// Starts to read `input`. Workers start as blocks turn up.
    pub(super) fn start(input: Input, threads: usize, observer: &Observer) -> io::Result<Pipeline> {
        // With the one that the reader is at and the one that is being handed over: 2 * threads + 2.
        let (to_reader, items) = bounded(2 * threads);
        let stopped = Arc::new(AtomicBool::new(false));
        let pieces = Pieces::new((2 * threads + 2) * (PIECES_AHEAD + 1));
        let jump = Jump::default();
        let cutter = Cutter {
            pieces: pieces.clone(),
            stopped: Arc::clone(&stopped),
            jump: Arc::clone(&jump),
            threads,
            observer: observer.clone(),
        };
        thread::Builder::new()
            .name("bzip2-read".to_owned())
            .spawn(move || cutter.run(Scanner::new(input), &to_reader))?;
        Ok(Pipeline { items, pieces, stopped, jump })
    }

    /// The next item; [`Item::Failed`] where the reading thread is gone.
    pub(super) fn next(&self) -> Item {
        self.items.recv().unwrap_or_else(|_| Item::Failed(io::Error::other("the thread that reads the input panicked")))
    }

    /// Asks to leave out what lies before `place`. It is done if the input has not been read beyond it; what lies before may
    /// come all the same.
    pub(super) fn jump(&self, place: &Checkpoint) {
        *self.jump.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.clone());
    }

    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// The thread that reads the input.
struct Cutter {
    pieces: Pieces,
    stopped: Arc<AtomicBool>,
    jump: Jump,
    threads: usize,
    observer: Observer,
}

impl Cutter {
    fn run(&self, mut scanner: Scanner<Input>, to_reader: &Sender<Item>) {
        let (jobs, waiting) = bounded(2 * self.threads);
        let mut workers = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            let place = self.jump.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(place) = place.filter(|place| scanner.is_before(place.bit)) {
                let item = match self.skip_to(&mut scanner, &place) {
                    Ok(()) => Item::Jumped(place),
                    Err(error) => Item::Failed(error),
                };
                if to_reader.send(item).is_err() {
                    return;
                }
                continue;
            }
            let segment = match scanner.segment() {
                Ok(Some(segment)) => Arc::new(segment),
                Ok(None) => {
                    let _ = to_reader.send(Item::End);
                    return;
                }
                Err(error) => {
                    let _ = to_reader.send(Item::Failed(error));
                    return;
                }
            };
            let job = (segment.opening == Opening::Magic(Magic::Block)).then(|| bounded(PIECES_AHEAD + 1));
            let (to_offer, parts) = job.unzip();
            if to_offer.is_some() && workers < self.threads {
                match self.start_worker(&waiting, workers) {
                    Ok(()) => workers += 1,
                    // Fewer threads do the same work.
                    Err(_) if workers > 0 => {}
                    Err(error) => {
                        let _ = to_reader.send(Item::Failed(error));
                        return;
                    }
                }
            }
            let offer = Offer { segment: Arc::clone(&segment), parts };
            if to_reader.send(Item::Segment(offer)).is_err() {
                return;
            }
            if let Some(parts) = to_offer
                && jobs.send(Job { segment, parts }).is_err()
            {
                return;
            }
        }
    }

    fn skip_to(&self, scanner: &mut Scanner<Input>, place: &Checkpoint) -> io::Result<()> {
        while !scanner.skip_to(place.bit, place.level)? && !self.stopped.load(Ordering::Relaxed) {}
        Ok(())
    }

    fn start_worker(&self, jobs: &Receiver<Job>, worker: usize) -> io::Result<()> {
        let (jobs, pieces, stopped) = (jobs.clone(), self.pieces.clone(), Arc::clone(&self.stopped));
        let observer = self.observer.clone();
        let work = move || {
            let watch = Watch::new(&observer, worker);
            let mut decoder = BlockDecoder::new();
            while let Ok(job) = watch.input(|| jobs.recv()) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                job.run(&mut decoder, &pieces, &watch);
            }
        };
        thread::Builder::new().name("bzip2-block".to_owned()).spawn(work).map(drop)
    }
}

impl Job {
    /// Decodes the block, until it ends or nobody wants it any longer.
    fn run(self, decoder: &mut BlockDecoder, pieces: &Pieces, watch: &Watch) {
        let Job { segment, parts } = self;
        let last = match decoder.decode(&segment) {
            Ok(block) => {
                drop(segment);
                hand_out(block, &parts, pieces, watch)
            }
            Err(Rejected) => {
                let block = TrustedDecoder::new(segment.level, &segment);
                drop(segment);
                hand_out_trusted(block, &parts, pieces, watch)
            }
        };
        if let Some(last) = last {
            // A block that turned out to be none has no receiver.
            let _ = parts.send(last);
        }
    }
}

/// Hands over the pieces of a block that has been decoded. Gives the last part, or none where nobody wants it.
fn hand_out(mut block: Block, parts: &Sender<Part>, pieces: &Pieces, watch: &Watch) -> Option<Part> {
    loop {
        let mut piece = pieces.take();
        let more = block.write(&mut piece);
        pieces.hand_over(piece, parts, watch)?;
        if !more {
            return Some(Part::Done(block.crc));
        }
    }
}

/// Like [`hand_out`], with a block that is yet to be checked.
fn hand_out_trusted(block: TrustedDecoder, parts: &Sender<Part>, pieces: &Pieces, watch: &Watch) -> Option<Part> {
    let mut scratch = pieces.take();
    let checked = block.check(&mut scratch);
    pieces.give_back(scratch);
    let mut block = match checked {
        Ok(Checked::Block(block)) => block,
        Ok(Checked::Unfinished(block)) => return Some(Part::Unfinished(Box::new(block))),
        Err(fault) => return Some(Part::Fault(fault)),
    };
    loop {
        let mut piece = pieces.take();
        let more = block.write(&mut piece);
        pieces.hand_over(piece, parts, watch)?;
        match more {
            Ok(true) => {}
            Ok(false) => return Some(Part::Done(block.crc)),
            Err(fault) => return Some(Part::Fault(fault)),
        }
    }
}

/// Output buffers that go round, so that none has to be made, and its pages faulted in, for each piece.
#[derive(Clone)]
pub(super) struct Pieces {
    free: Receiver<Vec<u8>>,
    give_back: Sender<Vec<u8>>,
}

impl Pieces {
    fn new(most: usize) -> Pieces {
        let (give_back, free) = bounded(most);
        Pieces { free, give_back }
    }

    /// An empty buffer with room for a piece.
    pub(super) fn take(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE_LEN))
    }

    /// Hands a piece over unless it is empty. None where nobody wants it.
    fn hand_over(&self, piece: Vec<u8>, parts: &Sender<Part>, watch: &Watch) -> Option<()> {
        if piece.is_empty() {
            self.give_back(piece);
            return Some(());
        }
        watch.output(piece.len(), || parts.send(Part::Piece(piece))).ok()
    }

    pub(super) fn give_back(&self, mut piece: Vec<u8>) {
        piece.clear();
        // A surplus buffer is dropped, and so is the reader's first one, which has no room.
        if piece.capacity() >= PIECE_LEN {
            let _ = self.give_back.try_send(piece);
        }
    }
}
