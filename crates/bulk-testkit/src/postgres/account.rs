use std::{env, ffi::OsStr, io, os::unix::process::CommandExt, path::PathBuf, process::Command};

use nix::unistd::{Uid, User, geteuid};

use super::Error;

/// Where the owner is root, the accounts that may run its server, in this order. `initdb` wants an account with an
/// entry in the user database, so a bare number will not do.
const UNPRIVILEGED: [&str; 3] = ["postgres", "nobody", "daemon"];

/// The account that runs the server and all of its helpers.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: String,
    /// User and group to become; none where the owner runs the server itself.
    pub(super) ids: Option<(u32, u32)>,
}

impl Account {
    /// The owner's own account, unless that is root: then `wanted`, or the first unprivileged one that exists.
    pub(super) fn choose(wanted: Option<&str>) -> Result<Self, Error> {
        let own = geteuid();
        if !own.is_root() {
            let name = User::from_uid(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name);
            return Ok(Self { name, ids: None });
        }
        let names = wanted.map_or_else(|| UNPRIVILEGED.to_vec(), |name| vec![name]);
        names
            .iter()
            .filter_map(|name| User::from_name(name).ok().flatten())
            .find(|user| user.uid != Uid::from_raw(0))
            .map(|user| Self { name: user.name, ids: Some((user.uid.as_raw(), user.gid.as_raw())) })
            .ok_or_else(|| Error::NoAccount { names: names.iter().map(|&name| name.to_owned()).collect() })
    }

    /// The error of a program that did not start under this account.
    pub(super) fn cannot_run(&self, program: impl Into<PathBuf>, source: io::Error) -> Error {
        Error::Run { program: program.into(), account: self.ids.map(|_| self.name.clone()), source }
    }

    /// A command that runs under this account, speaks English, and sees none of the owner's `PG...` variables. It
    /// starts in the root folder, because the account may have no right to the owner's.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        neutral(&mut command);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Has a command speak English and see none of the `PG...` variables, which change what PostgreSQL's programs do.
pub(super) fn neutral(command: &mut Command) {
    command.env("LC_ALL", "C");
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
}
