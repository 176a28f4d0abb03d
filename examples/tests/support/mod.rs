//! The programs under test.

use std::path::PathBuf;

/// `cargo test` builds the examples beside the tests, but not with `--test`.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not built: run all tests of this package", path.display());
    path
}
