//! Examples of embedding the libraries, one runnable file each, and whole jobs as folders. Here is what the jobs of `bulk` share.

use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// The program `bulk` beside the examples, built if it is not there. One that is there is taken as it is: `cargo build -p
/// bulk-cli` (with `--release`, if the example is) makes it anew.
///
/// # Errors
///
/// If it cannot be built.
pub fn bulk() -> Result<PathBuf, Box<dyn Error>> {
    let here = std::env::current_exe()?;
    // Beside the folder `examples`, or `deps`.
    let folder = here.parent().and_then(|folder| folder.parent()).ok_or("the program has no folder")?;
    let bulk = folder.join(format!("bulk{}", std::env::consts::EXE_SUFFIX));
    if !bulk.exists() {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--package", "bulk-cli"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status()?;
        if !status.success() || !bulk.exists() {
            return Err(format!("{} is not there, and was not built: {status}", bulk.display()).into());
        }
    }
    Ok(bulk)
}

/// The programs of the book's page on embedding.
#[cfg(doctest)]
#[doc = include_str!("../docs/embed.md")]
pub struct Embed;
