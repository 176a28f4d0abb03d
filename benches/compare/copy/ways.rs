//! The ways to load a table, and how each is told to.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulk_benches::Failed;
use bulk_testkit::postgres::{Database, Server};

use crate::inputs::Input;

/// A way to load a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The server reads a file of its own machine: format, and whether values are compressed by lz4.
    Server(&'static str, bool),
    /// psql's `\copy`: format, and whether values are compressed by lz4.
    Psql(&'static str, bool),
    /// psql's `\copy` of the server's own format over the server's Unix socket.
    PsqlUnix,
    /// A method of `peers.py`, and the module that it needs.
    Python(&'static str, &'static str),
    Pgloader,
    PgBulkload,
    Bulk(Bulk),
}

/// What `bulk load` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bulk {
    pub(crate) connections: usize,
    /// Whether bad records stand between the others.
    pub(crate) with_bad: bool,
    /// Whether the table's columns say pglz, as a server without lz4 would have it.
    pub(crate) pglz: bool,
    /// Whether all of it is one chunk, so that there is one mark.
    pub(crate) one_chunk: bool,
    /// Whether the server counts the rows in the end, as it does by default.
    pub(crate) counts: bool,
    /// Whether it goes over the server's Unix socket.
    pub(crate) unix: bool,
}

impl Bulk {
    pub(crate) const ONE: Self =
        Self { connections: 1, with_bad: false, pglz: false, one_chunk: false, counts: false, unix: false };
    pub(crate) const TWO: Self = Self { connections: 2, ..Self::ONE };
}

/// The floor: what the server needs for the rows in its own format.
pub(crate) const FLOOR: Way = Way::Server("binary", false);

impl Way {
    pub(crate) const ALL: [Self; 33] = [
        FLOOR,
        Self::Server("binary", true),
        Self::Server("text", false),
        Self::Server("csv", false),
        Self::Psql("binary", false),
        Self::PsqlUnix,
        Self::Psql("text", false),
        Self::Psql("csv", false),
        Self::Psql("csv", true),
        Self::Python("psycopg-binary", "psycopg"),
        Self::Python("psycopg-text", "psycopg"),
        Self::Python("psycopg-blocks", "psycopg"),
        Self::Python("pyloader", "psycopg2"),
        Self::Python("asyncpg-records", "asyncpg"),
        Self::Python("asyncpg-file", "asyncpg"),
        Self::Python("adbc", "adbc_driver_postgresql"),
        Self::Pgloader,
        Self::PgBulkload,
        Self::Python("insert", "psycopg2"),
        Self::Bulk(Bulk::ONE),
        Self::Bulk(Bulk::TWO),
        Self::Bulk(Bulk { pglz: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { pglz: true, ..Bulk::TWO }),
        Self::Bulk(Bulk { with_bad: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { with_bad: true, ..Bulk::TWO }),
        Self::Bulk(Bulk { one_chunk: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { one_chunk: true, ..Bulk::TWO }),
        Self::Bulk(Bulk { counts: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { counts: true, ..Bulk::TWO }),
        Self::Bulk(Bulk { unix: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { unix: true, pglz: true, ..Bulk::ONE }),
        Self::Bulk(Bulk { unix: true, one_chunk: true, ..Bulk::ONE }),
        // So that what the machine does in the meantime shows.
        FLOOR,
    ];

    /// What it is called in the table, and with `--only`.
    pub(crate) fn name(self) -> String {
        let lz4 = |is_lz4| if is_lz4 { ", lz4" } else { "" };
        match self {
            Self::Server(format, is_lz4) => format!("server-side COPY FROM file, {format}{}", lz4(is_lz4)),
            Self::Psql(format, is_lz4) => format!("psql \\copy, {format}{}", lz4(is_lz4)),
            Self::PsqlUnix => "psql \\copy, binary, Unix socket".to_owned(),
            Self::Python("pyloader", _) => "pyLoader's loop (psycopg2 copy_from)".to_owned(),
            Self::Python("insert", _) => "INSERT and COMMIT each (psycopg2)".to_owned(),
            Self::Python(method, _) => method.replacen('-', " ", 1),
            Self::Pgloader => "pgloader".to_owned(),
            Self::PgBulkload => "pg_bulkload".to_owned(),
            Self::Bulk(Bulk { connections, with_bad, pglz, one_chunk, counts, unix }) => {
                let plural = if connections == 1 { "" } else { "s" };
                let mut name = format!("bulk load, {connections} connection{plural}");
                let all = [
                    (with_bad, ", 0.1% bad"),
                    (pglz, ", pglz"),
                    (one_chunk, ", one chunk"),
                    (counts, ", counted in the end"),
                    (unix, ", Unix socket"),
                ];
                for (is_so, what) in all {
                    name.push_str(if is_so { what } else { "" });
                }
                name
            }
        }
    }

    /// How many rows it is to load: all, but for what would take for ever.
    pub(crate) fn rows(self, input: &Input) -> u64 {
        if self == Self::Python("insert", "psycopg2") { input.first } else { input.rows }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Bulk(_))
    }

    /// The exit status of success.
    pub(crate) fn done(self) -> i32 {
        if matches!(self, Self::Bulk(Bulk { with_bad: true, .. })) { 3 } else { 0 }
    }

    /// What is to be done to the empty table first.
    pub(crate) fn prepare(self, server: &Server, database: &Database, input: &Input) -> Result<(), Failed> {
        if matches!(self, Self::Bulk(Bulk { pglz: true, .. })) {
            let each = input.wide.iter().map(|column| format!("ALTER \"{column}\" SET COMPRESSION pglz"));
            server.psql(database.url(), &format!("ALTER TABLE t {}", each.collect::<Vec<_>>().join(", ")))?;
        }
        if self == Self::PgBulkload {
            server.psql(database.url(), "CREATE EXTENSION pg_bulkload")?;
        }
        Ok(())
    }
}

/// Where the programs are.
pub(crate) struct Programs {
    pub(crate) bulk: PathBuf,
    /// Where pip and dpkg have put peers.
    pub(crate) peers: Option<PathBuf>,
    pub(crate) script: PathBuf,
    pub(crate) work: PathBuf,
    /// The folder of the server's Unix socket.
    pub(crate) sockets: Option<PathBuf>,
}

impl Programs {
    /// Why a way cannot be gone, and how it could.
    pub(crate) fn missing(&self, way: Way) -> Option<String> {
        match way {
            Way::Python(_, module) => {
                let mut command = self.python();
                let found = command.args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
                let package = match module {
                    "psycopg" => "psycopg[binary]",
                    "psycopg2" => "psycopg2-binary",
                    "adbc_driver_postgresql" => "adbc-driver-postgresql pyarrow",
                    other => other,
                };
                (!found.is_ok_and(|status| status.success()))
                    .then(|| format!("not there: python3 -m pip install --target DIR {package}, then --peers DIR"))
            }
            Way::Pgloader => self.find("pgloader").is_none().then(|| {
                "not there: apt-get install pgloader, or dpkg -x of its package to DIR, then --peers DIR".to_owned()
            }),
            Way::PgBulkload => self.find("pg_bulkload").is_none().then(|| {
                "not there: build github.com/ossc-db/pg_bulkload against the server's own headers (postgresql-server-dev), \
                 and put its program on PATH"
                    .to_owned()
            }),
            Way::PsqlUnix | Way::Bulk(Bulk { unix: true, .. }) => {
                self.sockets.is_none().then(|| "not there: the server has no Unix socket".to_owned())
            }
            Way::Server(..) | Way::Psql(..) | Way::Bulk(_) => None,
        }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let peers = self.peers.iter().flat_map(|peers| ["usr/bin", "bin", ""].map(|below| peers.join(below)));
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = peers.collect();
        folders.extend(env::split_paths(&path));
        folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    fn python(&self) -> Command {
        let mut command = Command::new("python3");
        if let Some(peers) = &self.peers {
            command.env("PYTHONPATH", peers);
        }
        command
    }

    /// The command that loads the table `t`, which is there and empty.
    pub(crate) fn command(&self, way: Way, input: &Input, database: &Database) -> Result<Command, Failed> {
        let file = |format: &str| match format {
            "binary" => &input.binary,
            "text" => &input.text,
            _ => &input.csv,
        };
        let options = |format: &str| match format {
            "csv" => input.options.to_owned(),
            format => format!("FORMAT {format}"),
        };
        match way {
            Way::Server(format, is_lz4) => {
                let sql = format!("COPY t FROM '{}' ({})", file(format).display(), options(format));
                Ok(psql(database.url(), &sql, is_lz4))
            }
            Way::Psql(format, is_lz4) => {
                let columns = input.columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
                let sql = format!("\\copy t ({columns}) FROM '{}' ({})", file(format).display(), options(format));
                Ok(psql(database.url(), &sql, is_lz4))
            }
            Way::PsqlUnix => {
                let columns = input.columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ");
                let sql = format!("\\copy t ({columns}) FROM '{}' (FORMAT binary)", input.binary.display());
                Ok(psql(&self.on_socket(database)?, &sql, false))
            }
            Way::Python(method, _) => {
                let mut command = self.python();
                let from = if method == "adbc" { &input.csv } else { &input.text };
                command.arg(&self.script).arg(method).arg(database.url()).arg(from).arg(way.rows(input).to_string());
                Ok(command)
            }
            Way::Pgloader => self.pgloader(input, database),
            Way::PgBulkload => {
                let control = self.work.join("pg_bulkload.ctl");
                // BUFFERED is the writer that keeps the write-ahead log; its own log lies in the server's folder.
                let escape = if input.options.contains("ESCAPE") { "ESCAPE = \\\n" } else { "" };
                let text = format!(
                    "INPUT = {}\nOUTPUT = public.t\nTYPE = CSV\nSKIP = 1\nWRITER = BUFFERED\n{escape}",
                    input.csv.display()
                );
                fs::write(&control, text)?;
                // It takes no URL.
                let (user, host, port) = parts(database)?;
                let mut command = Command::new(self.find("pg_bulkload").ok_or("no such program")?);
                command.args(["-d", database.name(), "-h", host, "-p", port, "-U", user]).arg(control);
                Ok(command)
            }
            Way::Bulk(Bulk { connections, with_bad, one_chunk, counts, unix, .. }) => {
                let mut command = Command::new(&self.bulk);
                command.args(["load", "--quiet", "--table", "t", "--connections", &connections.to_string()]);
                if !counts {
                    // No other way does so.
                    command.args(["--verify", "none"]);
                }
                if one_chunk {
                    command.args(["--chunk-size", "1TiB"]);
                }
                if with_bad {
                    command.args(["--max-rejects", &input.bad.to_string()]).arg(&input.with_bad);
                } else {
                    command.arg(&input.csv);
                }
                let url = if unix { self.on_socket(database)? } else { database.url().to_owned() };
                command.env("BULK_DB", url);
                Ok(command)
            }
        }
    }

    /// The URL of the same database over the server's Unix socket.
    fn on_socket(&self, database: &Database) -> Result<String, Failed> {
        let folder = self.sockets.as_ref().ok_or("the server has no Unix socket")?;
        let (user, _, port) = parts(database)?;
        Ok(format!("postgresql://{user}@/{}?host={}&port={port}", database.name(), folder.display()))
    }

    /// pgloader's own language; its manual, "Loading CSV data" and "Loading COPY Formatted Files".
    fn pgloader(&self, input: &Input, database: &Database) -> Result<Command, Failed> {
        let columns = input.columns.join(", ");
        let is_plain = !input.options.contains("ESCAPE");
        // Its CSV has no dialect with NULL beside the empty string, so the published file goes as COPY text.
        let (from, with) = if is_plain {
            let with = "skip header = 1, fields optionally enclosed by '\"', fields escaped by double-quote, \
                        fields terminated by ','";
            (format!("CSV FROM '{}'", input.csv.display()), with)
        } else {
            (format!("COPY FROM '{}'", input.text.display()), "delimiter '\\t', null '\\N'")
        };
        let load = self.work.join("pgloader.load");
        let text = format!(
            "LOAD {from} ({columns})\n INTO {}\n TARGET TABLE public.t ({columns})\n WITH {with}\n SET client_encoding to \
             'utf8';\n",
            database.url()
        );
        fs::write(&load, text)?;
        let mut command = Command::new(self.find("pgloader").ok_or("no such program")?);
        command.args(["--quiet", "--on-error-stop", "--root-dir"]).arg(self.work.join("pgloader")).arg(load);
        Ok(command)
    }

    /// The first line of what each program says to the question for its version.
    pub(crate) fn versions(&self) -> Vec<String> {
        let said = |mut command: Command| {
            let output = command.output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Some(text.lines().next().unwrap_or_default().trim().to_owned()).filter(|line| !line.is_empty())
        };
        let module = |name: &str, package: &str| {
            let mut command = self.python();
            command.args(["-c", &format!("import importlib.metadata as m; print('{name}', m.version('{package}'))")]);
            said(command)
        };
        let program = |path: &Path| {
            let mut command = Command::new(path);
            command.arg("--version");
            said(command)
        };
        [
            program(&self.bulk),
            program(Path::new("psql")),
            module("psycopg", "psycopg"),
            module("psycopg2", "psycopg2-binary"),
            module("asyncpg", "asyncpg"),
            module("ADBC", "adbc-driver-postgresql"),
            self.find("pgloader").and_then(|path| program(&path)),
            self.find("pg_bulkload").and_then(|path| program(&path)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// User, host and port of a server that asks for no password.
fn parts(database: &Database) -> Result<(&str, &str, &str), Failed> {
    let authority = database.url().split('/').nth(2).unwrap_or_default();
    let (user, place) = authority.split_once('@').ok_or("the server's URL has no user")?;
    let (host, port) = place.rsplit_once(':').ok_or("the server's URL has no port")?;
    Ok((user, host, port))
}

fn psql(url: &str, sql: &str, is_lz4: bool) -> Command {
    let mut command = Command::new("psql");
    command.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(url);
    if is_lz4 {
        command.env("PGOPTIONS", "-c default_toast_compression=lz4");
    }
    command
}
