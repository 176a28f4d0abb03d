use super::{
    bit_reader::BitReader,
    huffman::{Code, MAX_LEN, MAX_SYMBOLS},
    move_to_front::MoveToFront,
};

/// A block has this many bytes, before its runs are restored, for each step of the level.
const LEVEL_LEN: usize = 100_000;

const MAX_TABLES: usize = 6;

/// How many symbols in a row have the same code.
const GROUP: usize = 50;

/// Selectors beyond what the largest block needs are read and ignored, as bzip2 does from version 1.0.8 on.
const MAX_SELECTORS: usize = 18_002;

/// More room than bytes allowed, so that short runs can be written as a whole.
const SHORT_RUN: usize = 16;

/// The symbols 0 and 1 are digits of the length of a run.
const LAST_DIGIT: u16 = 1;

/// Bits of which no block is made here. They may be one all the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejected;

/// The last column of a block's sorted rotations, and what else a block has.
pub(super) struct Column {
    /// The CRC with which the block is stored.
    pub(super) crc: u32,
    /// Which rotation is the text. There is one of this number.
    pub(super) origin: usize,
    /// How often each byte occurs.
    pub(super) counts: [u32; 256],
    bytes: Vec<u8>,
    len: usize,
}

impl Column {
    pub(super) fn new() -> Column {
        Column { crc: 0, origin: 0, counts: [0; 256], bytes: Vec::new(), len: 0 }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Reads a block of a stream of this level, from after its magic to its end.
    pub(super) fn read(&mut self, bits: &mut BitReader, level: u8) -> Result<(), Rejected> {
        self.crc = bits.take(32);
        if bits.take(1) == 1 {
            // Randomised, as bzip2 wrote some blocks before version 0.9.5.
            return Err(Rejected);
        }
        self.origin = bits.take(24) as usize;
        let (values, used) = values(bits);
        let values = &values[..used];
        if values.is_empty() {
            return Err(Rejected);
        }
        let tables = bits.take(3) as usize;
        let count = bits.take(15) as usize;
        if !(2..=MAX_TABLES).contains(&tables) || count == 0 {
            return Err(Rejected);
        }
        let selectors = selectors(bits, tables, count)?;
        let codes = (0..tables).map(|_| code(bits, used + 2)).collect::<Result<Vec<_>, _>>()?;
        self.read_symbols(bits, values, &selectors, &codes, usize::from(level) * LEVEL_LEN)?;
        if self.origin < self.len { Ok(()) } else { Err(Rejected) }
    }

    /// Reads the column itself, given the values that occur in it.
    fn read_symbols(
        &mut self,
        bits: &mut BitReader,
        values: &[u8],
        selectors: &[u8],
        codes: &[Option<Box<Code>>],
        limit: usize,
    ) -> Result<(), Rejected> {
        self.counts = [0; 256];
        if self.bytes.len() < limit + SHORT_RUN {
            self.bytes = vec![0; limit + SHORT_RUN];
        }
        let bytes = &mut self.bytes[..limit + SHORT_RUN];
        let mut front = MoveToFront::new(values);
        let end = values.len() as u16 + 1;
        // A run's length is written with the digits 1 and 2, the lowest first. The next one counts `worth` times.
        let (mut len, mut run, mut worth) = (0, 0, 1);
        for &selector in selectors {
            let code = codes[usize::from(selector)].as_ref().ok_or(Rejected)?;
            for _ in 0..GROUP {
                bits.refill();
                let symbol = code.take(bits);
                if symbol <= LAST_DIGIT {
                    run += worth << symbol;
                    worth <<= 1;
                    if run > limit {
                        return Err(Rejected);
                    }
                    continue;
                }
                if run > 0 {
                    if run > limit - len {
                        return Err(Rejected);
                    }
                    let byte = front.first();
                    if run <= SHORT_RUN {
                        bytes[len..len + SHORT_RUN].fill(byte);
                    } else {
                        bytes[len..len + run].fill(byte);
                    }
                    self.counts[usize::from(byte)] += run as u32;
                    (len, run, worth) = (len + run, 0, 1);
                }
                if symbol == end {
                    self.len = len;
                    return Ok(());
                }
                if len == limit {
                    return Err(Rejected);
                }
                let byte = front.take((symbol - 1) as u8);
                bytes[len] = byte;
                self.counts[usize::from(byte)] += 1;
                len += 1;
            }
        }
        Err(Rejected)
    }
}

/// The bytes that occur in a block, in order, and how many they are.
fn values(bits: &mut BitReader) -> ([u8; 256], usize) {
    let (mut values, mut used) = ([0; 256], 0);
    let sixteens = bits.take(16);
    for high in (0..16).filter(|high| sixteens & 0x8000 >> high != 0) {
        let ones = bits.take(16);
        for low in (0..16).filter(|low| ones & 0x8000 >> low != 0) {
            values[used] = high << 4 | low;
            used += 1;
        }
    }
    (values, used)
}

/// Which code each group of symbols has.
fn selectors(bits: &mut BitReader, tables: usize, count: usize) -> Result<Vec<u8>, Rejected> {
    let mut front = [0, 1, 2, 3, 4, 5];
    let mut selectors = Vec::with_capacity(count.min(MAX_SELECTORS));
    for n in 0..count {
        let place = bits.unary(tables as u32 - 1).ok_or(Rejected)? as usize;
        if n < MAX_SELECTORS {
            front[..=place].rotate_right(1);
            selectors.push(front[0]);
        }
    }
    Ok(selectors)
}

/// A code of this many symbols: the first one's length, then what leads from each length to the next. None where the
/// lengths make no complete code: lbzip2 writes such a thing where it has use for one code only, as two are the least.
fn code(bits: &mut BitReader, symbols: usize) -> Result<Option<Box<Code>>, Rejected> {
    let mut lengths = [0; MAX_SYMBOLS];
    let mut length = bits.take(5) as u8;
    for slot in &mut lengths[..symbols] {
        while (1..=MAX_LEN as u8).contains(&length) && bits.take(1) == 1 {
            length = if bits.take(1) == 0 { length + 1 } else { length - 1 };
        }
        if !(1..=MAX_LEN as u8).contains(&length) {
            return Err(Rejected);
        }
        *slot = length;
    }
    Ok(Code::new(&lengths[..symbols]))
}
