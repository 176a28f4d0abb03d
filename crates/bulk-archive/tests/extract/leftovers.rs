//! What a run that died leaves behind, and what others that are under way have.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::symlink as make_symlink,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use bulk_archive::{ExtractOptions, extract, remove_leftovers};

use super::support::*;

#[test]
fn leftovers_are_removed() {
    let place = Place::new();
    let parts = place.target().join(".bulk-extract");
    let litter = || {
        fs::create_dir_all(&parts).unwrap();
        fs::write(parts.join("1-2-3.run"), b"").unwrap();
        fs::write(parts.join("1-2-4.1.part"), [1; 10_000]).unwrap();
        fs::write(parts.join("1-2-3.1.part"), [1; 10_000]).unwrap();
        fs::hard_link(place.above.path().join("witness"), parts.join("1-2-3.2.part")).unwrap();
        make_symlink("../../witness", parts.join("1-2-3.3.part")).unwrap();
    };
    litter();
    extract(io::Cursor::new("id\n"), "a.csv", &place.target(), &ExtractOptions::default()).unwrap();
    assert_eq!(place.paths(), ["a.csv"]);
    litter();
    assert!(remove_leftovers(&place.target()).unwrap() >= 20_000);
    assert_eq!(place.paths(), ["a.csv"]);
    assert_eq!(remove_leftovers(&place.target()).unwrap(), 0);
    assert_eq!(remove_leftovers(&place.above.path().join("none")).unwrap(), 0);
    place.check_outside();
    // Something that is none of ours stays.
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("notes"), b"mine").unwrap();
    assert_eq!(remove_leftovers(&place.target()).unwrap(), 0);
    assert!(parts.join("notes").exists());
}

#[test]
fn a_run_under_way_keeps_its_own() {
    let place = Place::new();
    let (to_run, from_here) = mpsc::channel::<Vec<u8>>();
    let (asked, was_asked) = mpsc::channel();
    let mut options = ExtractOptions::default();
    let asked = Mutex::new(asked);
    options.on_write = Some(Arc::new(move |bytes| {
        asked.lock().unwrap().send(bytes).unwrap();
        Ok(())
    }));
    let target = place.target();
    let run = thread::spawn(move || extract(Channel(from_here, Vec::new()), "slow.csv", &target, &options));
    // The second step is asked for when the first is written.
    to_run.send(vec![b'a'; 200_000]).unwrap();
    to_run.send(vec![b'b'; 400_000]).unwrap();
    was_asked.recv().unwrap();
    was_asked.recv().unwrap();
    assert_eq!(remove_leftovers(&place.target()).unwrap(), 0);
    extract(io::Cursor::new("id\n"), "other.csv", &place.target(), &ExtractOptions::default()).unwrap();
    drop(to_run);
    assert_eq!(run.join().unwrap().unwrap().bytes, 600_000);
    assert_eq!(place.paths(), ["other.csv", "slow.csv"]);
}

struct Channel(mpsc::Receiver<Vec<u8>>, Vec<u8>);

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.recv().unwrap_or_default();
        }
        let n = self.1.len().min(into.len());
        into[..n].copy_from_slice(&self.1[..n]);
        self.1.drain(..n);
        Ok(n)
    }
}

/// Runs into one folder, each of which removes leftovers, makes links and takes the folder of unfinished files away.
#[test]
fn many_runs_at_once() {
    let place = Place::new();
    thread::scope(|scope| {
        for run in 0..8 {
            let target = place.target();
            scope.spawn(move || {
                for round in 0..60 {
                    let names = ["f", "l", "h"].map(|kind| format!("{kind}-{run}-{round}"));
                    let bytes = archive(&[
                        file(&names[0], b"1"),
                        symlink(&names[1], &names[0]),
                        hard_link(&names[2], &names[0]),
                    ]);
                    extract(io::Cursor::new(bytes), "a.tar", &target, &ExtractOptions::default()).unwrap();
                }
            });
        }
    });
    assert_eq!(place.paths().len(), 8 * 60 * 3);
    place.check_outside();
}
