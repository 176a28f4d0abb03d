//! Parquet that others write: [pyarrow](https://arrow.apache.org/docs/python/), which shares no line with the crate that
//! `bulk` reads it with.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::moto::{Error, environment};

/// What is installed where Python has no pyarrow of its own.
const VERSION: &str = "26.0.1";

/// A Python that can import pyarrow: `python3` of the `PATH`, or else that of a virtual environment in `cache`, which is
/// made by the first to need it (with pip, from the network) and shared by all later ones.
///
/// # Errors
///
/// If there is no `python3`, or if the environment cannot be made. The message has the command that mends it.
pub fn python(cache: &Path) -> Result<PathBuf, Error> {
    let python3 = PathBuf::from("python3");
    if Command::new(&python3).args(["-c", "import pyarrow.parquet"]).output().is_ok_and(|run| run.status.success()) {
        return Ok(python3);
    }
    environment(&python3, cache, "pyarrow", &format!("pyarrow=={VERSION}"))
}
