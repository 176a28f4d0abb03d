//! The numbers of tar headers, read strictly: what readers are known to disagree about is none.

/// A point in time, as seconds since 1970 and the nanoseconds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// A field of a header: octal digits, ended by spaces or NULs, or in base 256 where the first bit is set (GNU). A blank
/// one is 0.
pub(crate) fn field(field: &[u8]) -> Option<i64> {
    match field {
        [first @ (0x80 | 0xff), rest @ ..] => {
            let fill = if *first == 0xff { 0xff } else { 0 };
            let (high, low) = rest.split_at_checked(rest.len().saturating_sub(8))?;
            let mut bytes = [fill; 8];
            bytes[8 - low.len()..].copy_from_slice(low);
            let value = i64::from_be_bytes(bytes);
            (high.iter().all(|&byte| byte == fill) && (value < 0) == (fill == 0xff)).then_some(value)
        }
        _ => {
            let start = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
            let digits = &field[start..];
            let end = digits.iter().position(|&byte| byte == b' ' || byte == 0).unwrap_or(digits.len());
            let (digits, rest) = digits.split_at(end);
            if rest.iter().any(|&byte| byte != b' ' && byte != 0) {
                return None;
            }
            digits.iter().try_fold(0i64, |value, &byte| match byte {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

/// A decimal number without a sign.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A decimal number of seconds, which may be negative and may have a fraction. Digits after the ninth are dropped.
pub(crate) fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let dot = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let fraction = text.get(dot + 1..).unwrap_or_default();
    let seconds = i64::try_from(decimal(&text[..dot])?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanoseconds =
        (0..9).fold(0, |value, i| value * 10 + u32::from(fraction.get(i).map_or(0, |digit| digit - b'0')));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let cases: [(&[u8], Option<i64>); 15] = [
            (b"00000000012\0", Some(10)),
            (b"      12 \0\0\0", Some(10)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\0\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"12\x007\0\0\0\0", None),
            (b"18\0", None),
            (b"+1\0", None),
            (b"-1\0", None),
        ];
        for (bytes, value) in cases {
            assert_eq!(field(bytes), value, "{bytes:?}");
        }
    }

    #[test]
    fn times() {
        let time = |text: &str| time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
        assert_eq!(time("1751234567"), Some((1_751_234_567, 0)));
        assert_eq!(time("1751234567.5"), Some((1_751_234_567, 500_000_000)));
        assert_eq!(time("1.1234567899"), Some((1, 123_456_789)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        assert_eq!(time("3."), Some((3, 0)));
        for wrong in ["", "-", ".5", "1e3", "1.x", "+1", "9223372036854775808"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
