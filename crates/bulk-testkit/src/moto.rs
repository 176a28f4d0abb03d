//! An S3 server that others wrote: [moto](https://docs.getmoto.org/), the Python imitation of AWS.
//!
//! [`s3::Server`](crate::s3::Server) is ours, and so are its misunderstandings. [`Server`] is the second opinion: a
//! client that agrees with both has read the protocol and not our mind. The same Python brings boto3, the AWS client,
//! so [`Server::python`] (or [`python`] alone) is the second opinion on `s3::Server`, too.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::{FlockOperation, flock};

/// What is installed where Python has no moto of its own.
const VERSION: &str = "5.2.5";

/// Ends with its standard input, so with its owner, however that ends.
const SCRIPT: &str = r#"
import os, sys, threading

def end_with_owner():
    sys.stdin.buffer.read()
    os._exit(0)

threading.Thread(target=end_with_owner, daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", "0"])
"#;

/// Exits with 0 if all that is needed can be imported, without importing it.
const PROBE: &str = r#"
import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, ("moto", "boto3", "flask", "flask_cors"))))
"#;

/// Why moto could not be had, or what it refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Python.
    #[error("moto needs Python 3: install it with `apt install python3 python3-venv`")]
    NoPython(#[source] io::Error),
    /// The virtual environment could not be made.
    #[error(
        "cannot make an environment with it, do so with `python3 -m pip install '{package}'`: \
         `{command}` ended with {status}: {output}"
    )]
    Install {
        /// What was to be installed, as pip names it.
        package: String,
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
    },
    /// The folder of the virtual environment could not be written.
    #[error("cannot use {} for an environment with moto", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// moto ended, or was silent for too long, instead of saying where it listens.
    #[error("moto does not start, try `python3 -m pip install 'moto[server]=={VERSION}'`: {output}")]
    Start {
        /// The last lines that it printed.
        output: String,
    },
    /// The connection to moto failed.
    #[error("no answer from moto")]
    Connection(#[from] io::Error),
    /// moto answered with an error.
    #[error("moto answered {what} with {answer}")]
    Refused {
        /// Method and path.
        what: String,
        /// The answer, head and body.
        answer: String,
    },
}

/// A moto server on a loopback port of its own. It keeps its objects in memory and ends when this is dropped, or when
/// the process that holds it ends in any way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    python: PathBuf,
    child: Child,
    log: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts moto and waits until it listens.
    ///
    /// Takes the first Python that [`python`] finds, with the folder for temporary files as its cache.
    ///
    /// # Errors
    ///
    /// If there is no Python with moto and none can be made, or if moto does not start. The message has the command
    /// that mends it.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(python(&std::env::temp_dir())?)
    }

    /// Starts the moto of this Python.
    ///
    /// # Errors
    ///
    /// If it has no moto, or if moto does not start.
    pub fn start_with(python: PathBuf) -> Result<Self, Error> {
        let mut child = Command::new(&python)
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::NoPython)?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (found, address) = mpsc::channel();
        let log = child.stderr.take().map(|stderr| {
            let tail = Arc::clone(&tail);
            thread::spawn(move || follow(stderr, &found, &tail))
        });
        let mut server = Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), python, child, log };
        // It fails at once when the log ends, which it does with the process.
        match address.recv_timeout(Duration::from_secs(120)) {
            Ok(address) => {
                server.address = address;
                Ok(server)
            }
            Err(_) => {
                drop(server);
                let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                Err(Error::Start { output: tail.make_contiguous().join(" | ") })
            }
        }
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The Python that runs moto. It can import boto3.
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// Makes a bucket.
    ///
    /// # Errors
    ///
    /// If moto refuses it or does not answer.
    pub fn create_bucket(&self, name: &str) -> Result<(), Error> {
        self.send("PUT", &format!("/{name}"), &[])
    }

    /// Puts an object into a bucket.
    ///
    /// # Errors
    ///
    /// If moto refuses it, as it does when there is no such bucket, or does not answer.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<(), Error> {
        self.send("PUT", &path(bucket, key), bytes)
    }

    /// Removes an object from a bucket, if it is there.
    ///
    /// # Errors
    ///
    /// If moto refuses it, as it does when there is no such bucket, or does not answer.
    pub fn remove(&self, bucket: &str, key: &str) -> Result<(), Error> {
        self.send("DELETE", &path(bucket, key), &[])
    }

    /// moto wants credentials, and takes any.
    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<(), Error> {
        let mut stream = TcpStream::connect(self.address)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=any/20240101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=any\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer.starts_with(b"HTTP/1.1 20") {
            Ok(())
        } else {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            Err(Error::Refused { what: format!("{method} {path}"), answer })
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already; it is waited for in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(log) = self.log.take() {
            let _ = log.join();
        }
    }
}

fn path(bucket: &str, key: &str) -> String {
    const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    format!("/{bucket}/{}", utf8_percent_encode(key, PATH))
}

/// Finds the address in what moto prints, and reads on, so that moto never waits for a reader.
fn follow(stderr: ChildStderr, found: &mpsc::Sender<SocketAddr>, tail: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some((_, address)) = line.split_once("Running on http://")
            && let Ok(address) = address.trim().parse()
        {
            let _ = found.send(address);
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push_back(line);
        if tail.len() > 10 {
            tail.pop_front();
        }
    }
}

/// A Python that can import moto and boto3: `python3` of the `PATH`, or else the one that `moto_server` of the `PATH`
/// runs with, or else that of a virtual environment in `cache`, which is made by the first to need it (with pip, from
/// the network) and shared by all later ones.
///
/// # Errors
///
/// If there is no `python3`, or if the environment cannot be made. The message has the command that mends it.
pub fn python(cache: &Path) -> Result<PathBuf, Error> {
    let python3 = PathBuf::from("python3");
    let candidates = [Some(python3.clone()), interpreter_of("moto_server")];
    for candidate in candidates.into_iter().flatten() {
        if Command::new(&candidate).args(["-c", PROBE]).output().is_ok_and(|output| output.status.success()) {
            return Ok(candidate);
        }
    }
    environment(&python3, cache, "moto", &format!("moto[server]=={VERSION}"))
}

/// The interpreter that the first line of a script in the `PATH` names.
fn interpreter_of(script: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut scripts = std::env::split_paths(&path).filter_map(|folder| File::open(folder.join(script)).ok());
    let mut line = String::new();
    BufReader::new(scripts.next()?).read_line(&mut line).ok()?;
    let interpreter = line.strip_prefix("#!")?.trim();
    interpreter.contains("python").then(|| PathBuf::from(interpreter))
}

/// The Python of an environment with a package. It appears under its name only when it is complete, and only one process
/// makes it.
pub(crate) fn environment(python3: &Path, cache: &Path, label: &str, package: &str) -> Result<PathBuf, Error> {
    let version = package.rsplit('=').next().unwrap_or_default();
    let name = format!("bulk-testkit-{label}-{version}");
    let folder = cache.join(&name);
    let python = folder.join("bin").join("python");
    let failed = |source| Error::Cache { path: folder.clone(), source };
    fs::create_dir_all(cache).map_err(failed)?;
    let lock = File::create(cache.join(format!("{name}.lock"))).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    if python.exists() {
        return Ok(python);
    }
    let part = tempfile::Builder::new().prefix(&format!("bulk-testkit-{label}-")).tempdir_in(cache).map_err(failed)?;
    run(Command::new(python3).args(["-m", "venv"]).arg(part.path()), package)?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(part.path().join("bin").join("python")).args(pip).arg(package), package)?;
    // Python finds its packages beside itself, so the folder may move; only pip's scripts may not.
    fs::rename(part.path(), &folder).map_err(failed)?;
    let _ = part.keep();
    Ok(python)
}

fn run(command: &mut Command, package: &str) -> Result<(), Error> {
    let output = command.stdin(Stdio::null()).output().map_err(Error::NoPython)?;
    if output.status.success() {
        return Ok(());
    }
    let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
    Err(Error::Install {
        package: package.to_owned(),
        command: words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
        status: output.status,
        output: format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    })
}
