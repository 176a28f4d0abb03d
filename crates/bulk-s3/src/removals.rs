//! What is kept of objects that are to be removed behind the manifest, whose own manifest is gone by then.

use std::path::Path;
use std::{fs, io};

/// The names that were kept; none if nothing was, or it is damaged.
pub(crate) fn read(path: &Path) -> io::Result<Vec<String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Keeps names in place of those that were. It is synced, since what follows in the bucket lasts.
pub(crate) fn write(path: &Path, names: &[String]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let part = path.with_extension("part");
    let mut file = fs::File::create(&part)?;
    io::Write::write_all(&mut file, &serde_json::to_vec(names)?)?;
    file.sync_all()?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes/removals");
        assert_eq!(read(&path).unwrap(), [""; 0]);
        for names in [vec!["a/b".to_owned(), "odd \"\n\u{e9}".to_owned()], vec!["c".to_owned()]] {
            write(&path, &names).unwrap();
            assert_eq!(read(&path).unwrap(), names);
        }
        assert_eq!(fs::read_dir(folder.path().join("notes")).unwrap().count(), 1);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read(&path).unwrap(), [""; 0]);
    }
}
