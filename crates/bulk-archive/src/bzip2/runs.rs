/// A block before the last step of its decoding: after four equal bytes stands a count of how many more of them follow.
pub(super) struct Runs<'a> {
    coded: &'a [u8],
}

/// How many equal bytes a count follows.
const RUN: usize = 4;

/// How many places are looked through at once for a run.
const WINDOW: usize = 32;

impl<'a> Runs<'a> {
    pub(super) fn new(coded: &'a [u8]) -> Runs<'a> {
        Runs { coded }
    }

    /// The next bytes that stand for themselves, up to the next run's fourth byte, and how often the last of them is to
    /// be repeated. None at the end. [`Cut`] where a count is missing.
    pub(super) fn next(&mut self) -> Result<Option<(&'a [u8], u8)>, Cut> {
        if self.coded.is_empty() {
            return Ok(None);
        }
        let Some(at) = run_at(self.coded) else {
            return Ok(Some((std::mem::take(&mut self.coded), 0)));
        };
        let (literal, rest) = self.coded.split_at(at + RUN);
        let (&count, rest) = rest.split_first().ok_or(Cut)?;
        self.coded = rest;
        Ok(Some((literal, count)))
    }
}

/// A block ends within a run, where the count should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut;

/// Where the first four equal bytes begin.
fn run_at(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(window) = bytes[from..].first_chunk::<{ WINDOW + RUN - 1 }>() {
        let mut found = false;
        for i in 0..WINDOW {
            found |= (window[i] == window[i + 1]) & (window[i] == window[i + 2]) & (window[i] == window[i + 3]);
        }
        if found {
            break;
        }
        from += WINDOW;
    }
    let run = |run: &[u8]| run.iter().all(|byte| *byte == run[0]);
    bytes[from..].windows(RUN).position(run).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn restore(coded: &[u8]) -> Result<Vec<u8>, Cut> {
        let (mut runs, mut plain) = (Runs::new(coded), Vec::new());
        while let Some((literal, count)) = runs.next()? {
            plain.extend_from_slice(literal);
            plain.extend(literal.last().map(|&byte| vec![byte; usize::from(count)]).unwrap_or_default());
        }
        Ok(plain)
    }

    /// The same, byte by byte.
    fn by_byte(coded: &[u8]) -> Result<Vec<u8>, Cut> {
        let (mut plain, mut equal) = (Vec::new(), 0);
        for &byte in coded {
            if equal == RUN {
                let last = plain[plain.len() - 1];
                plain.extend(vec![last; usize::from(byte)]);
                equal = 0;
            } else {
                equal = if equal > 0 && plain.last() == Some(&byte) { equal + 1 } else { 1 };
                plain.push(byte);
            }
        }
        if equal == RUN { Err(Cut) } else { Ok(plain) }
    }

    #[test]
    fn a_count_follows_four_equal_bytes() {
        assert_eq!(restore(b""), Ok(vec![]));
        assert_eq!(restore(b"aaab"), Ok(b"aaab".to_vec()));
        assert_eq!(restore(b"aaaa\0"), Ok(b"aaaa".to_vec()));
        assert_eq!(restore(b"aaaa\x03a"), Ok(b"aaaaaaaa".to_vec()));
        assert_eq!(restore(b"aaaa\0aaaa\x01"), Ok(b"aaaaaaaaa".to_vec()));
        assert_eq!(restore(b"aaaa"), Err(Cut));
        assert_eq!(restore(b"baaaa"), Err(Cut));
        assert_eq!(restore(&[4; 5]), Ok(vec![4; 8]));
        assert_eq!(restore(b"aaaa\xff").map(|plain| plain.len()), Ok(259));
    }

    proptest! {
        #[test]
        fn runs_are_found_wherever_they_stand(parts in prop::collection::vec((0u8..4, 1usize..9, 0usize..50), 0..20)) {
            let coded: Vec<u8> = parts
                .iter()
                .flat_map(|&(byte, len, noise)| {
                    let between = (0..noise).map(|i| (i * 37 + i / 7) as u8);
                    std::iter::repeat_n(byte, len).chain(between)
                })
                .collect();
            prop_assert_eq!(restore(&coded), by_byte(&coded));
        }
    }
}
