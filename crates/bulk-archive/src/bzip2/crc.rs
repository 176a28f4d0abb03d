/// The CRC of bzip2's blocks: CRC-32 with the polynomial 0x04c11db7, highest bit first.
#[derive(Clone, Copy)]
pub(super) struct Crc(u32);

/// How many bytes are taken in at once.
const STRIDE: usize = 16;

/// For each number of zero bytes after it, what a byte contributes.
static TABLES: [[u32; 256]; STRIDE] = {
    let mut tables = [[0; 256]; STRIDE];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < STRIDE {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = crc << 8 ^ tables[0][(crc >> 24) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
};

impl Crc {
    /// That of no bytes.
    pub(super) fn new() -> Crc {
        Crc(u32::MAX)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut crc = self.0;
        let (strides, rest) = bytes.as_chunks::<STRIDE>();
        for stride in strides {
            let mut stride = *stride;
            for (byte, old) in stride.iter_mut().zip(crc.to_be_bytes()) {
                *byte ^= old;
            }
            crc = stride.iter().zip(TABLES.iter().rev()).fold(0, |crc, (&byte, table)| crc ^ table[usize::from(byte)]);
        }
        for &byte in rest {
            crc = crc << 8 ^ TABLES[0][usize::from((crc >> 24) as u8 ^ byte)];
        }
        self.0 = crc;
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value() {
        // CRC-32/BZIP2 in the catalogue of parametrised CRC algorithms.
        let mut crc = Crc::new();
        crc.update(b"123456789");
        assert_eq!(crc.value(), 0xfc89_1918);
    }

    #[test]
    fn bytes_at_once_or_one_by_one() {
        let bytes: Vec<u8> = (0..100u32).map(|i| (i * i * 37 / 8) as u8).collect();
        for length in 0..bytes.len() {
            let (mut at_once, mut one_by_one) = (Crc::new(), Crc::new());
            at_once.update(&bytes[..length]);
            bytes[..length].iter().for_each(|byte| one_by_one.update(&[*byte]));
            assert_eq!(at_once.value(), one_by_one.value());
        }
    }
}
