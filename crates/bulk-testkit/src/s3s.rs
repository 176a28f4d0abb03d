//! Another S3 server that others wrote: [s3s-fs](https://docs.rs/s3s-fs), over a folder.
//!
//! Like [`moto`](crate::moto) it is a second opinion for clients, and faster. Of listings it knows ListObjectsV2 and
//! ListObjects, with pages, `start-after`, prefix and delimiter, in the order of UTF-8 bytes. It is unlike S3 in these
//! points:
//!
//! - Keys are paths below the folder of their bucket. `a//b` is listed as `a/b`, and an object `a` leaves no room for
//!   `a/b`; a key that ends with `/` is a folder, which is not listed.
//! - Asked for `encoding-type=url` it says `EncodingType` and encodes nothing, so that who decodes reads `a%2Fb` as another
//!   key.
//! - Listings have no ETags, though HEAD and GET do.
//! - A token is the last key of its page, and each page walks all that is below its prefix.
//! - There are no versions, and `If-Match` is passed over.
//!
//! It is a program of its own, built by `cargo install` with its own lock file: as a dependency it would have this
//! workspace take a `crc-fast` that Rust 1.88 cannot build.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// What is built. Needs Rust 1.92.
const VERSION: &str = "0.14.1";

/// Runs the program until the standard input ends, so until its owner does, however that ends. Only the program holds
/// the standard output.
const SCRIPT: &str = r#""$0" "$@" </dev/null & exec >/dev/null; cat; kill $!; wait"#;

/// Why s3s-fs could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be built.
    #[error("cannot build s3s-fs: `{command}` ended with {status}: {output}")]
    Install {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last that it printed.
        output: String,
    },
    /// A program or a folder could not be used.
    #[error("cannot run s3s-fs")]
    Start(#[from] io::Error),
    /// It ended, or was silent for too long, instead of saying where it listens.
    #[error("s3s-fs does not start in {}", root.display())]
    Silent {
        /// The folder that it was to serve.
        root: PathBuf,
    },
}

/// A server on a loopback port of its own, for anybody, that reads and writes. It ends when this is dropped, or when the
/// process that holds it ends in any way; what was put into it stays in its folder.
#[derive(Debug)]
pub struct Server {
    url: String,
    child: Child,
    log: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves a folder with this [`program`]: the folders in it are the buckets. Answers when this returns.
    ///
    /// # Errors
    ///
    /// If there is no such folder, or if the program cannot be run or has no port.
    pub fn start(program: &Path, root: &Path) -> Result<Self, Error> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .arg(root)
            .env("RUST_LOG", "s3s_fs=info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (found, url) = mpsc::channel();
        let log = child.stdout.take().map(|stdout| {
            // It reads on, so that the program never waits for a reader.
            thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line);
                    if let Some((_, address)) = line.split_once("server is running at http://") {
                        let _ = found.send(address.split([',', ' ']).next().unwrap_or_default().to_owned());
                    }
                }
            })
        });
        let mut server = Self { url: String::new(), child, log };
        // It fails at once when the log ends, which it does with the program.
        let address = url.recv_timeout(Duration::from_secs(60));
        server.url = format!("http://{}", address.map_err(|_| Error::Silent { root: root.to_owned() })?);
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of its input ends it, and its shell waits for it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

/// The program, in `cache`: built by the first to need it (with cargo, from the network, for some minutes) and shared by
/// all later ones.
///
/// # Errors
///
/// If it cannot be built.
pub fn program(cache: &Path) -> Result<PathBuf, Error> {
    let name = format!("bulk-testkit-s3s-fs-{VERSION}");
    let folder = cache.join(&name);
    fs::create_dir_all(cache)?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(io::Error::from)?;
    let program = folder.join("bin").join("s3s-fs");
    if program.exists() {
        return Ok(program);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["install", "s3s-fs", "--locked", "--features", "binary", "--version", &format!("={VERSION}")]);
    command.arg("--root").arg(&folder).env_remove("CARGO_TARGET_DIR");
    // It names its program when that is whole: cargo renames it into place.
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(program);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last: Vec<&str> = said.lines().rev().take(10).collect();
    Err(Error::Install {
        command: format!("cargo install s3s-fs --locked --features binary --version ={VERSION}"),
        status: output.status,
        output: last.into_iter().rev().collect::<Vec<_>>().join(" | "),
    })
}
