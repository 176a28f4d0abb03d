//! What the name of an archive says.

use crate::Codec;

/// The extensions of a tar that is compressed, each one word for both.
const SHORT: [(&str, Codec); 6] = [
    ("tgz", Codec::Gzip),
    ("tbz", Codec::Bzip2),
    ("tbz2", Codec::Bzip2),
    ("tz2", Codec::Bzip2),
    ("txz", Codec::Xz),
    ("tzst", Codec::Zstd),
];

/// What the name of a file says of what [`extract`](crate::extract()) makes of it with
/// [`Destination::Folder`](crate::Destination::Folder), before a byte of it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveName<'a> {
    /// The codec that it names; [`Codec::Plain`] for a tar that is not compressed.
    pub codec: Codec,
    /// The name of what comes out, below the target folder: of the folder if the content is a tar, else of the file.
    pub output: &'a str,
}

impl<'a> ArchiveName<'a> {
    /// Reads the last part of `name`. `None` if it names neither a codec nor a tar.
    ///
    /// ```
    /// use bulk_archive::{ArchiveName, Codec};
    ///
    /// let name = ArchiveName::parse("bulk/courts.csv.bz2").unwrap();
    /// assert_eq!((name.codec, name.output), (Codec::Bzip2, "courts.csv"));
    /// assert_eq!(ArchiveName::parse("data.tgz").unwrap().output, "data");
    /// assert_eq!(ArchiveName::parse("courts.csv"), None);
    /// ```
    pub fn parse(name: &'a str) -> Option<ArchiveName<'a>> {
        let base = base(name);
        let codec = match Codec::from_name(base) {
            Codec::Plain => short(base).map_or(Codec::Plain, |(_, codec)| codec),
            codec => codec,
        };
        // Of what is no tar the folder's name is the file's.
        (codec != Codec::Plain || says_tar(base)).then(|| ArchiveName { codec, output: of_folder(base) })
    }
}

/// Whether the name says that the content is a tar.
pub(crate) fn says_tar(name: &str) -> bool {
    let name = without_codec(name);
    split(name).is_some_and(|(_, extension)| is(extension, "tar")) || short(name).is_some()
}

/// The name of the plain file: the last part of `name` without the extension of its codec.
pub(crate) fn of_file(name: &str, codec: Codec) -> &str {
    let base = base(name);
    if codec == Codec::Plain { base } else { without_codec(base) }
}

/// The name of the folder for a tar: the last part of `name` without what says tar and codec.
pub(crate) fn of_folder(name: &str) -> &str {
    let name = without_codec(base(name));
    match split(name) {
        Some((stem, extension)) if is(extension, "tar") => stem,
        _ => short(name).map_or(name, |(stem, _)| stem),
    }
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn without_codec(name: &str) -> &str {
    match split(name) {
        Some((stem, _)) if Codec::from_name(name) != Codec::Plain => stem,
        _ => name,
    }
}

/// The name without an extension that means a compressed tar, and how that is compressed.
fn short(name: &str) -> Option<(&str, Codec)> {
    let (stem, extension) = split(name)?;
    SHORT.iter().find(|(known, _)| is(extension, known)).map(|(_, codec)| (stem, *codec))
}

fn split(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
}

fn is(extension: &str, known: &str) -> bool {
    extension.eq_ignore_ascii_case(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases = [
            ("a.tar", true, "a.tar", "a"),
            ("x/y/a-2026-06-30.tar.gz", true, "a-2026-06-30.tar", "a-2026-06-30"),
            ("A.TAR.ZST", true, "A.TAR", "A"),
            ("a.tgz", true, "a.tgz", "a"),
            ("a.csv.bz2", false, "a.csv", "a.csv"),
            ("a.bz2.csv", false, "a.bz2.csv", "a.bz2.csv"),
            ("tar.gz", false, "tar", "tar"),
            (".tar.gz", true, ".tar", ""),
            ("a.tar/b", false, "b", "b"),
            ("", false, "", ""),
        ];
        for (name, tar, file, folder) in cases {
            assert_eq!((says_tar(name), of_file(name, Codec::Gzip), of_folder(name)), (tar, file, folder), "{name}");
        }
        assert_eq!(of_file("a.gz", Codec::Plain), "a.gz");
    }

    #[test]
    fn names_tell_codec_and_output_before_anything_is_read() {
        let cases = [
            ("a.csv", None),
            ("x.d/readme", None),
            ("x/a.csv.bz2", Some((Codec::Bzip2, "a.csv"))),
            ("a.tar.gz", Some((Codec::Gzip, "a"))),
            ("a.tar", Some((Codec::Plain, "a"))),
            ("a.TGZ", Some((Codec::Gzip, "a"))),
            ("a.tgz.gz", Some((Codec::Gzip, "a"))),
            ("a.tgz.xz", Some((Codec::Xz, "a"))),
            ("tar.xz", Some((Codec::Xz, "tar"))),
            (".tar.gz", Some((Codec::Gzip, ""))),
        ];
        for (name, expected) in cases {
            let found = ArchiveName::parse(name).map(|name| (name.codec, name.output));
            assert_eq!(found, expected, "{name}");
        }
    }
}
