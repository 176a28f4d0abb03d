use std::fmt::Display;

/// A count with its noun, "1 row", "2 rows", and perhaps a verb: "1 row refers", "2 rows refer". Each crate has its own, since
/// what they share is their API.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let what = if count == N::from(1) { one } else { many };
    format!("{count} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one() {
        let said = [0_u64, 1, 2].map(|count| counted(count, "file is", "files are"));
        assert_eq!(said, ["0 files are", "1 file is", "2 files are"]);
    }
}
