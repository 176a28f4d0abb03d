use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode;

/// Bytes that a name may have on the file systems in use.
const NAME: usize = 255;
/// What the names of devices look like to Windows, whatever extension they have
/// (<https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file>).
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
/// The folder below which downloads, and whoever else writes to a folder, keep their state.
const STATE: &str = ".bulk";

/// The relative path of a key's file; none for an empty key, which no object has.
///
/// The `/` of the key are those of the path, and what no name can have or no file system takes is percent-encoded by its
/// UTF-8 bytes: `%`, control characters, `\`, `:`, `*`, `?`, `"`, `<`, `>`, `|`, a `.` or a space at the end of a name, the
/// first letter of a device's name (`nul.txt`), a `/` next to another one or at an end of the key, and the dot of a first name
/// `.bulk`, which is the folder of programs' own state. A name that would be longer than 255 bytes is cut by a `%` and a `/`
/// that stand for nothing. So percent-decoding a path without its `%/` gives the key again, and no two keys have the same path. Where the file system takes upper and lower case for the same, keys that
/// differ in nothing else have the same file, though.
///
/// ```
/// use bulk_s3::{key_of_path, path_of_key};
///
/// let path = path_of_key("a//../b: 100%/").unwrap();
/// assert_eq!(path.to_str(), Some("a/%2F.%2E/b%3A 100%25%2F"));
/// assert_eq!(key_of_path(&path).as_deref(), Some("a//../b: 100%/"));
/// ```
pub fn path_of_key(key: &str) -> Option<PathBuf> {
    let mut path = Names::default();
    for (at, char) in key.char_indices() {
        let is_unsafe = char.is_control() || matches!(char, '%' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
        match char {
            '/' if !path.name.is_empty() && at + 1 < key.len() => path.end(""),
            '/' => path.push("%2F"),
            _ if is_unsafe => path.push(&encoded(char)),
            _ => path.push(char.encode_utf8(&mut [0; 4])),
        }
    }
    (!key.is_empty()).then(|| {
        path.end("");
        path.names.iter().collect()
    })
}

/// The key whose [path](path_of_key) this is; none if it is that of no key.
pub fn key_of_path(path: &Path) -> Option<String> {
    let mut key = Vec::new();
    let mut is_cut = true;
    for component in path.components() {
        let Component::Normal(name) = component else { return None };
        if !is_cut {
            key.push(b'/');
        }
        let name = name.to_str()?;
        let rest = name.strip_suffix('%');
        is_cut = rest.is_some();
        key.extend(percent_decode(rest.unwrap_or(name).as_bytes()));
    }
    let key = String::from_utf8(key).ok()?;
    // As no other path of it was ever made.
    path_of_key(&key).is_some_and(|made| made == path).then_some(key)
}

#[derive(Default)]
struct Names {
    names: Vec<String>,
    name: String,
}

impl Names {
    /// Puts a character or its code into the name. Room is left for the `%` of a cut, and for codes at the ends.
    fn push(&mut self, unit: &str) {
        if self.name.len() + unit.len() > NAME - 5 {
            self.end("%");
        }
        self.name.push_str(unit);
    }

    fn end(&mut self, cut: &str) {
        let mut name = std::mem::take(&mut self.name);
        name.push_str(cut);
        if let Some(last) = name.pop() {
            match last {
                '.' | ' ' => name.push_str(&encoded(last)),
                _ => name.push(last),
            }
        }
        let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
        let port = stem.strip_prefix("com").or_else(|| stem.strip_prefix("lpt"));
        let is_port = port.is_some_and(|port| {
            matches!(port, "¹" | "²" | "³") || port.len() == 1 && port.as_bytes()[0].is_ascii_digit()
        });
        let is_state = self.names.is_empty() && name.eq_ignore_ascii_case(STATE);
        if DEVICES.contains(&stem.as_str()) || is_port || is_state {
            let first = name.remove(0);
            name.insert_str(0, &encoded(first));
        }
        self.names.push(name);
    }
}

fn encoded(char: char) -> String {
    char.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")).collect()
}
