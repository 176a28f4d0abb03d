//! A bucket of made-up files, or of made-up keys by the million, served by a process of its own, so that its work is not counted with a client's.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use bulk_testkit::s3::{Checksum, Fault, KeySpace, Object, Rule, Server, Store, made_up};
use nix::sys::resource::UsageWho;
use serde_json::{Value, json};

use crate::Failed;
use crate::measured::cpu_seconds;

/// The name of the bucket.
pub const BUCKET: &str = "data";
/// What all keys start with.
pub const PREFIX: &str = "files/";
/// The first argument of the process that serves.
const SERVE: &str = "--serve-bucket";
/// Clients upload what is larger in parts of this size.
const PART: u64 = 8 << 20;

/// One file of a bucket.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its path below [`PREFIX`], and below the folder that it is fetched to.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// What it has.
    pub content: Content,
}

/// What a file has.
#[derive(Clone, Debug)]
pub enum Content {
    /// Bytes that follow from this seed; see [`made_up`].
    Seed(u64),
    /// The bytes of this file, over and over.
    Pattern(PathBuf),
}

impl Made {
    /// `count` files of `size` bytes each.
    pub fn several(kind: &str, count: usize, size: u64) -> Vec<Self> {
        let seed = kind.bytes().take(5).fold(0, |seed, byte| seed * 256 + u64::from(byte)) << 20;
        let content = |number| Content::Seed(seed + number as u64);
        let made = |number| Self { name: format!("{kind}-{number:05}.bin"), size, content: content(number) };
        (0..count).map(made).collect()
    }

    /// The object: its ETag is its MD5 up to 8 MiB, and has the form of a multipart upload's above; with a CRC64NVME of
    /// the whole where asked, as S3 has of what was uploaded since 2025.
    ///
    /// # Errors
    ///
    /// If the pattern cannot be read.
    pub fn object(&self, with_checksum: bool) -> Result<Object, Failed> {
        let object = match &self.content {
            Content::Seed(seed) => Object::made_up(self.size, *seed),
            Content::Pattern(pattern) => Object::repeating(self.size, &fs::read(pattern)?),
        };
        let object = if self.size <= PART { object.md5_etag() } else { object };
        Ok(if with_checksum { object.checksum(Checksum::Crc64Nvme) } else { object })
    }

    /// Says how the file in `folder` differs, byte for byte; `None` if it does not.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be read.
    pub fn difference(&self, folder: &Path) -> Result<Option<String>, Failed> {
        let mut file = match File::open(folder.join(&self.name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("missing".to_owned())),
            Err(error) => return Err(error.into()),
        };
        let size = file.metadata()?.len();
        if size != self.size {
            return Ok(Some(format!("{size} bytes of {}", self.size)));
        }
        let pattern = match &self.content {
            Content::Seed(_) => Vec::new(),
            Content::Pattern(pattern) => fs::read(pattern)?,
        };
        let (mut found, mut expected) = (vec![0; 1 << 18], vec![0; 1 << 18]);
        let mut offset = 0;
        while offset < size {
            let len = found.len().min((size - offset) as usize);
            file.read_exact(&mut found[..len])?;
            match &self.content {
                Content::Seed(seed) => made_up(*seed, offset, &mut expected[..len]),
                Content::Pattern(_) => {
                    let from = pattern.iter().cycle().skip((offset % pattern.len() as u64) as usize);
                    expected[..len].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
            }
            if found[..len] != expected[..len] {
                let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
                return Ok(Some(format!("another byte at {}", offset + same as u64)));
            }
            offset += len as u64;
        }
        Ok(None)
    }

    fn to_json(&self) -> Value {
        match &self.content {
            Content::Seed(seed) => json!({"name": self.name, "size": self.size, "seed": seed}),
            Content::Pattern(pattern) => json!({"name": self.name, "size": self.size, "pattern": pattern}),
        }
    }

    fn from_json(file: &Value) -> Option<Self> {
        let content = match file["seed"].as_u64() {
            Some(seed) => Content::Seed(seed),
            None => Content::Pattern(file["pattern"].as_str()?.into()),
        };
        Some(Self { name: file["name"].as_str()?.to_owned(), size: file["size"].as_u64()?, content })
    }
}

/// How far away the server is.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// Before each answer.
    pub latency: Duration,
    /// Bytes a second of each connection; `None` for as fast as it goes.
    pub rate: Option<u64>,
}

/// A process that serves. Ends when it is dropped.
#[derive(Debug)]
pub struct Bucket {
    child: Child,
    answers: BufReader<ChildStdout>,
    url: String,
}

/// What a [`Bucket`] has done since it was last asked.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Requests of all kinds.
    pub requests: u64,
    /// Listings among them.
    pub lists: u64,
    /// Keys on the pages of these.
    pub keys: u64,
    /// GETs of objects among the requests.
    pub gets: u64,
    /// Bytes of bodies handed to the kernel.
    pub bytes: u64,
    /// Connections over which the requests came.
    pub connections: u64,
    /// Seconds on a core.
    pub cpu: f64,
}

impl Bucket {
    /// Starts it. It answers when this returns. The calling program must begin with [`serve_if_asked`].
    ///
    /// # Errors
    ///
    /// If the process cannot be started or has no port.
    pub fn start(files: &[Made], distance: Distance, with_checksum: bool) -> Result<Self, Failed> {
        Self::serve(&json!({
            "files": files.iter().map(Made::to_json).collect::<Vec<_>>(),
            "latency": distance.latency.as_secs_f64(),
            "rate": distance.rate,
            "checksum": with_checksum,
        }))
    }

    /// Like [`start`](Self::start), for a bucket of so many keys that they are held nowhere. They start at its root.
    ///
    /// # Errors
    ///
    /// If the process cannot be started or has no port.
    pub fn of_keys(keys: &KeySpace, distance: Distance) -> Result<Self, Failed> {
        Self::serve(&json!({
            "keys": {
                "layout": keys.layout.name(),
                "keys": keys.keys,
                "edition": keys.edition,
                "match_one_in": keys.match_one_in,
                "changed_one_in": keys.changed_one_in,
                "missing_one_in": keys.missing_one_in,
            },
            "latency": distance.latency.as_secs_f64(),
            "rate": distance.rate,
        }))
    }

    fn serve(spec: &Value) -> Result<Self, Failed> {
        let mut child =
            Command::new(env::current_exe()?).arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no pipe")?;
        let mut bucket = Self { child, answers: BufReader::new(stdout), url: String::new() };
        bucket.url = bucket.ask(&spec.to_string())?;
        Ok(bucket)
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has done since this was last asked.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn served(&mut self) -> Result<Served, Failed> {
        let served: Value = self.ask("served")?.parse()?;
        let number = |name: &str| served[name].as_u64().unwrap_or(0);
        Ok(Served {
            requests: number("requests"),
            lists: number("lists"),
            keys: number("keys"),
            gets: number("gets"),
            bytes: number("bytes"),
            connections: number("connections"),
            cpu: served["cpu"].as_f64().unwrap_or(0.0),
        })
    }

    fn ask(&mut self, question: &str) -> Result<String, Failed> {
        let stdin = self.child.stdin.as_mut().ok_or("no pipe")?;
        writeln!(stdin, "{question}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            Err("the process that serves has ended".into())
        } else {
            Ok(answer.trim_end().to_owned())
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends with its input.
        let _ = self.child.wait();
    }
}

/// Is the process that serves, if this one was started to be that. Returns whether it was.
///
/// # Errors
///
/// If it has no port, or what is to be served cannot be read.
pub fn serve_if_asked() -> Result<bool, Failed> {
    if env::args_os().nth(1).is_none_or(|first| first != SERVE) {
        return Ok(false);
    }
    let mut questions = io::stdin().lock().lines();
    let Some(spec) = questions.next() else { return Ok(true) };
    let spec: Value = spec?.parse()?;
    answer(&server(&spec)?, questions)?;
    Ok(true)
}

/// Serves a made-up bucket from this process, until its standard input ends. Prints its URL, and for each line of input
/// what it has done since the line before, as JSON.
///
/// # Errors
///
/// If it has no port.
pub fn serve_keys(keys: KeySpace, latency: Duration) -> Result<(), Failed> {
    answer(&server_of(Store::made_up(keys), latency)?, io::stdin().lock().lines())
}

fn answer(server: &Server, questions: impl Iterator<Item = io::Result<String>>) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", server.url())?;
    let mut before = cpu_seconds(UsageWho::RUSAGE_SELF)?;
    for question in questions {
        question?;
        let counts = server.counts();
        server.clear_requests();
        let now = cpu_seconds(UsageWho::RUSAGE_SELF)?;
        let served = json!({
            "requests": counts.requests(),
            "lists": counts.lists(),
            "keys": counts.keys_listed,
            "gets": counts.get,
            "bytes": counts.bytes_sent,
            "connections": counts.connections,
            "cpu": now - before,
        });
        before = now;
        writeln!(out, "{served}")?;
    }
    Ok(())
}

/// Of a bucket of this name, which keeps no record of single requests.
fn server_of(store: Store, latency: Duration) -> Result<Server, Failed> {
    let server = Server::builder().bucket(BUCKET, store).keep_requests(0).start()?;
    if !latency.is_zero() {
        server.fault(Rule::new(Fault::Latency(latency)));
    }
    Ok(server)
}

fn server(spec: &Value) -> Result<Server, Failed> {
    let mut objects = Vec::new();
    let with_checksum = spec["checksum"].as_bool().unwrap_or(false);
    for file in spec["files"].as_array().into_iter().flatten() {
        let made = Made::from_json(file).ok_or("a file is a name, a size, and a seed or a pattern")?;
        objects.push((format!("{PREFIX}{}", made.name), made.object(with_checksum)?));
    }
    let store = match key_space(&spec["keys"])? {
        Some(keys) => Store::made_up(keys),
        None => objects.into_iter().collect(),
    };
    let server = server_of(store, Duration::from_secs_f64(spec["latency"].as_f64().unwrap_or(0.0)))?;
    if let Some(rate) = spec["rate"].as_u64() {
        server.fault(Rule::new(Fault::Bandwidth(rate)));
    }
    Ok(server)
}

fn key_space(spec: &Value) -> Result<Option<KeySpace>, Failed> {
    let Some(layout) = spec["layout"].as_str() else { return Ok(None) };
    let number = |name: &str| spec[name].as_u64().ok_or("a space of keys is a layout and numbers");
    Ok(Some(KeySpace {
        layout: layout.parse()?,
        keys: number("keys")?,
        edition: number("edition")?,
        match_one_in: number("match_one_in")?,
        changed_one_in: number("changed_one_in")?,
        missing_one_in: number("missing_one_in")?,
    }))
}
