//! Contents that repeat in every way, near and far: what an archive makes of them another decoder reads back, at each level, by
//! any number of threads, and whatever was compressed before.

use std::io::{Cursor, Read};

use bulk_archive::{ArchiveOptions, ArchiveReader, ArchiveWriter, rebuild_index};
use flate2::read::GzDecoder;

use crate::Take;

const NAME: &str = "a.tar.gz";
/// Bytes of all contents, at most: more than two windows and blocks of the usual length.
const MOST: usize = 200 << 10;
/// Items, at most.
const ITEMS: usize = 40;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let mut options = ArchiveOptions::default();
    options.level = 1 + take.below(9) as u32;
    options.block_len = take.one_of(&[1, 300, 5000, 32 << 10]);
    options.chain_len = take.one_of(&[1, 20_000, 1 << 20]);
    let items = 1 + take.below(ITEMS);
    let contents = contents(take);
    let contents: Vec<&[u8]> = contents.chunks(contents.len().div_ceil(items).max(1)).collect();

    let (archive, index) = built(&contents, &options, 1);
    // Threads are given several blocks together, and know then what came before.
    assert!(built(&contents, &options, 2) == (archive.clone(), index.clone()));
    let rebuilt = rebuild_index(Cursor::new(&archive), Vec::new(), NAME, &options).expect("an archive of our own");
    assert!(rebuilt.0 == index);
    let mut tar = Vec::new();
    GzDecoder::new(&archive[..]).read_to_end(&mut tar).expect("a gzip of our own");
    let mut reader = ArchiveReader::new(Cursor::new(&archive), NAME);
    for content in contents {
        let item = reader.next_item().expect("an archive of our own").expect("as many as were written");
        assert!(item.content == content);
        // So that it is not our reader alone that finds them.
        let at = tar.windows(512).position(|header| header.starts_with(name(item.id).as_bytes())).expect("its header");
        tar.drain(..at + 512);
        assert!(tar.starts_with(content));
    }
    assert!(reader.next_item().expect("an archive of our own").is_none());
}

fn name(id: &str) -> String {
    format!("{id}.json\0")
}

fn built(contents: &[&[u8]], options: &ArchiveOptions, threads: usize) -> (Vec<u8>, Vec<u8>) {
    let mut options = options.clone();
    options.threads = threads;
    let mut writer = ArchiveWriter::new(Vec::new(), Vec::new(), NAME, &options).expect("memory");
    for (number, content) in contents.iter().enumerate() {
        writer.append(&format!("item-{number:06}"), 7, content).expect("items in their order");
    }
    let (archive, index, _) = writer.finish().expect("memory");
    (archive, index)
}

/// The bytes of an input are a script: bytes as they are, runs of one, noise, and what stood so far back.
fn contents(mut take: Take<'_>) -> Vec<u8> {
    let mut contents: Vec<u8> = Vec::new();
    let mut noise = 0x9e37_79b9_u32;
    while !take.is_empty() && contents.len() < MOST {
        let kind = take.byte();
        let (len, at) = (usize::from(kind >> 3), contents.len());
        match kind % 8 {
            0 | 1 => (0..=len).for_each(|_| contents.push(take.byte())),
            2 => contents.extend(std::iter::repeat_n(take.byte(), 16 * len)),
            3 => {
                for _ in 0..64 * len {
                    noise ^= noise << 13;
                    noise ^= noise >> 17;
                    noise ^= noise << 5;
                    contents.push(noise as u8);
                }
            }
            // Up to twice as far as deflate can refer, and as long as its longest match and longer; it may reach what it
            // makes.
            _ if at > 0 => {
                let len = [3, 4 + len, 32 + len, 250 + len][usize::from(kind % 4)];
                let back = 1 + usize::from(take.two()) % at;
                (0..len).for_each(|_| contents.push(contents[contents.len() - back]));
            }
            _ => contents.push(kind),
        }
    }
    contents.truncate(MOST);
    contents
}
