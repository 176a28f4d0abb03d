//! Figures as people write them.

use std::time::Duration;

use bytesize::ByteSize;

/// Bytes, as people write them.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "a size is a number with a unit, such as 20GiB or 512MB".to_owned())?;
    Ok(size.as_u64())
}

pub(crate) fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "it must be a number from 1 on".to_owned())
}

pub(crate) fn segment(text: &str) -> Result<u64, String> {
    size(text).and_then(|size| if size == 0 { Err("it must be more than nothing".to_owned()) } else { Ok(size) })
}

/// A span of time, as people write it.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    span.and_then(|span| span.try_into().ok())
        .ok_or_else(|| "a time is a number with a unit, such as 90s or 5m".to_owned())
}

pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio: &f64| *ratio >= 1.0 && ratio.is_finite());
    ratio.ok_or_else(|| "a ratio is a number from 1 on".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        let sizes = ["20GiB", "512MB", "1.5 TiB", "0", "64k"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [20 << 30, 512_000_000, 3 << 39, 0, 64_000]);
        for none in ["", "-1", "1 XB", "GiB", "many"] {
            assert!(size(none).is_err(), "{none}");
        }
        assert!(segment("0").is_err());
        let times = ["90s", "5m", "1h 30m", "0s"].map(|text| time(text).unwrap().as_secs());
        assert_eq!(times, [90, 300, 5400, 0]);
        for none in ["", "90", "-5s", "soon"] {
            assert!(time(none).is_err(), "{none}");
        }
        assert!(ratio("0.5").is_err() && ratio("NaN").is_err() && ratio("inf").is_err());
    }
}
