//! Replays the kept corpus, and seeded changes of it: the same ones in each run.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

use fastrand::Rng;

/// The files of a target's corpus, in their order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs the target with all files, and with so many changes of them. An input that fails is kept where the message says.
fn replay(name: &str, target: fn(&[u8]), changed: usize) {
    let files = corpus(name);
    assert!(!files.is_empty());
    for (number, file) in files.iter().enumerate() {
        run(name, target, file, &format!("file-{number}"));
    }
    let runs: usize = std::env::var("BULK_CAMPAIGN_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let mut random = Rng::with_seed(15);
    for number in 0..changed * runs {
        let file = &files[number % files.len()];
        let other = &files[random.usize(..files.len())];
        let input = change(file, other, &mut random);
        run(name, target, &input, &format!("change-{number}"));
    }
}

fn run(name: &str, target: fn(&[u8]), input: &[u8], what: &str) {
    if catch_unwind(|| target(input)).is_err() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{what}"));
        fs::write(&path, input).unwrap();
        panic!("why stands above; the input is in {}", path.display());
    }
}

/// Bytes that parsers look for.
const TELLING: &[u8] = b"\0\n\r\t \"'\\`,;:{}[]()<>&/.%-+0179xnN\x7f\x80\xc3\xff";

/// A few changes, as libFuzzer makes them.
fn change(file: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..=16)).min(bytes.len());
        match random.u8(..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 if at < bytes.len() => bytes[at] = TELLING[random.usize(..TELLING.len())],
            3 => bytes.insert(at, TELLING[random.usize(..TELLING.len())]),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let part = bytes[at..end].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, part);
            }
            6 if !other.is_empty() => {
                let from = random.usize(..other.len());
                let part = &other[from..(from + random.usize(..64)).min(other.len())];
                bytes.splice(at..end, part.iter().copied());
            }
            7 => bytes.truncate(at),
            _ => bytes.push(random.u8(..)),
        }
    }
    bytes
}

macro_rules! replays {
    ($($target:ident $changed:literal),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                replay(stringify!($target), bulk_fuzz::$target::target, $changed);
            }
        )*

        /// Each folder of the corpus is replayed.
        #[test]
        fn no_corpus_is_left_out() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
            let mut names: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

// Changes: as many as take about a second.
replays! {
    archive 600,
    codecs 600,
    copy_files 4000,
    deflate 60,
    listing 4000,
    object_rows 2000,
    records 4000,
    schema 3000,
    splice 100,
    state 3000,
    tar 600,
    template 4000,
    values 6000,
}
