use std::fmt::Display;

/// A number and what it counts: `one` of it, or `many`, each with its verb where there is one.
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
        assert_eq!(counted(1_usize, "index", "indexes"), "1 index");
    }
}
