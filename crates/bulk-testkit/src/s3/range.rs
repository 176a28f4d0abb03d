//! The `Range` header, read as S3 reads it (RFC 9110, section 14.2).

use std::ops::Range;

/// What a `Range` header asks of an object of a given size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ranged {
    /// No range, or one that S3 ignores: another unit, several ranges, nonsense.
    Whole,
    /// These bytes, never empty.
    Part(Range<u64>),
    /// Nothing of the range lies in the object.
    Unsatisfiable,
}

pub(super) fn parse(header: Option<&str>, size: u64) -> Ranged {
    let Some((first, last)) =
        header.and_then(|header| header.trim().strip_prefix("bytes=")).and_then(|spec| spec.trim().split_once('-'))
    else {
        return Ranged::Whole;
    };
    match (number(first), number(last)) {
        (Number::Absent, Number::Is(length)) => match length.min(size) {
            0 => Ranged::Unsatisfiable,
            length => Ranged::Part(size - length..size),
        },
        (Number::Is(first), Number::Absent) => part(first, u64::MAX, size),
        (Number::Is(first), Number::Is(last)) if first <= last => part(first, last, size),
        _ => Ranged::Whole,
    }
}

fn part(first: u64, last: u64, size: u64) -> Ranged {
    if first >= size { Ranged::Unsatisfiable } else { Ranged::Part(first..last.saturating_add(1).min(size)) }
}

enum Number {
    Absent,
    Is(u64),
    Bad,
}

fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Bad
    }
}

#[cfg(test)]
mod tests {
    use super::{Ranged::*, parse};

    #[test]
    fn ranges_are_read_as_s3_reads_them() {
        let cases = [
            (None, 10, Whole),
            (Some("bytes=0-0"), 10, Part(0..1)),
            (Some("bytes=2-5"), 10, Part(2..6)),
            (Some("bytes=2-"), 10, Part(2..10)),
            (Some("bytes=9-"), 10, Part(9..10)),
            (Some("bytes=2-99"), 10, Part(2..10)),
            (Some("bytes=0-18446744073709551615"), 10, Part(0..10)),
            (Some("bytes=0-99999999999999999999999"), 10, Part(0..10)),
            (Some("bytes=-3"), 10, Part(7..10)),
            (Some("bytes=-30"), 10, Part(0..10)),
            (Some("bytes=-0"), 10, Unsatisfiable),
            (Some("bytes=10-"), 10, Unsatisfiable),
            (Some("bytes=10-12"), 10, Unsatisfiable),
            (Some("bytes=0-"), 0, Unsatisfiable),
            (Some("bytes=-5"), 0, Unsatisfiable),
            (Some("bytes=5-2"), 10, Whole),
            (Some("bytes=0-1,4-5"), 10, Whole),
            (Some("bytes=-"), 10, Whole),
            (Some("bytes=a-b"), 10, Whole),
            (Some("bytes=+1-2"), 10, Whole),
            (Some("items=0-1"), 10, Whole),
        ];
        for (header, size, expected) in cases {
            assert_eq!(parse(header, size), expected, "{header:?} of {size}");
        }
    }
}
