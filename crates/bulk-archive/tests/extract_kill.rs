//! A process that is killed while it extracts leaves no torn file under a final name, and the next run finishes.
//!
//! This program is its own child: with `child TARGET` it extracts the tar on its standard input. The parent feeds it
//! and kills it after a number of bytes, so that nothing waits for a time.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, Cursor, Write},
    path::Path,
    process::{Command, Stdio},
};

use bulk_archive::{ExtractOptions, extract};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.as_slice() {
        [_, child, target] if child == "child" => {
            extract(io::stdin(), "a.tar", Path::new(target), &ExtractOptions::default()).unwrap();
        }
        [_, ..] if arguments.iter().any(|argument| argument == "--list") => {}
        _ => killed_at_any_byte(),
    }
}

fn killed_at_any_byte() {
    let expected: BTreeMap<String, Vec<u8>> = (0..400u32)
        .map(|i| {
            let length = if i % 100 == 7 { 9 << 20 } else { (i * 7919 % 60_000) as usize };
            (format!("d{}/{i}", i % 7), (0..length).map(|j| (j as u32 * 31 + i) as u8).collect())
        })
        .collect();
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in &expected {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    let archive = builder.into_inner().unwrap();
    let (mut seed, mut whole, mut left_parts) = (12_345u64, 0, 0);
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let cut = (seed >> 33) as usize % archive.len();
        let mut child =
            Command::new(env::current_exe().unwrap()).arg("child").arg(&target).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(&archive[..cut]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        drop(input);
        let parts = target.join(".bulk-extract");
        left_parts += usize::from(parts.exists());
        whole += check(&target, &expected, true, round);
        extract(Cursor::new(archive.clone()), "a.tar", &target, &ExtractOptions::default()).unwrap();
        assert_eq!(check(&target, &expected, false, round), expected.len());
        assert!(!parts.exists());
    }
    // The kills came in the middle.
    assert!(whole > 0 && left_parts > 0, "{whole} {left_parts}");
}

/// Each file there is whole. Says how many there are.
fn check(target: &Path, expected: &BTreeMap<String, Vec<u8>>, partly: bool, round: usize) -> usize {
    let mut found = 0;
    for (path, bytes) in expected {
        match fs::read(target.join(path)) {
            Ok(read) => {
                assert!(read == *bytes, "{round}: {path} is torn");
                found += 1;
            }
            Err(error) => assert!(partly && error.kind() == io::ErrorKind::NotFound, "{round}: {path}: {error}"),
        }
    }
    found
}
