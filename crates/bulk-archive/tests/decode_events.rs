//! What a decoder's threads say of themselves.

mod support;

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    sync::{Arc, Mutex, mpsc},
};

use bulk_archive::{DecodeEvent, Decoder};
use support::options;

/// Decodes over two threads. What it gave, and what each worker said, to its end.
fn decode(name: &str, file: Vec<u8>) -> (Vec<u8>, BTreeMap<usize, Vec<DecodeEvent>>) {
    let mut options = options(2);
    let (send, receive) = mpsc::channel();
    let send = Mutex::new(send);
    options.observer = Arc::new(move |event: &DecodeEvent| send.lock().unwrap().send(*event).unwrap());
    let mut decoder = Decoder::new(Cursor::new(file), name, &options).unwrap();
    drop(options);
    let mut plain = Vec::new();
    decoder.read_to_end(&mut plain).unwrap();
    drop(decoder);
    let mut said = BTreeMap::<usize, Vec<DecodeEvent>>::new();
    // It ends when the last thread has.
    for event in receive {
        let worker = match event {
            DecodeEvent::Works { worker }
            | DecodeEvent::WaitsForInput { worker }
            | DecodeEvent::WaitsForOutput { worker }
            | DecodeEvent::Gave { worker, .. }
            | DecodeEvent::Ends { worker } => worker,
            other => panic!("{other:?}"),
        };
        said.entry(worker).or_default().push(event);
    }
    (plain, said)
}

fn given(said: &BTreeMap<usize, Vec<DecodeEvent>>) -> u64 {
    let bytes = |event: &DecodeEvent| if let DecodeEvent::Gave { bytes, .. } = event { *bytes } else { 0 };
    said.values().flatten().map(bytes).sum()
}

/// Not to be compressed to nothing.
fn plain() -> Vec<u8> {
    let numbers = (0_u64..400_000).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
    numbers.flat_map(|number| number.to_string().into_bytes()).collect()
}

#[test]
fn the_reading_thread_decodes_gzip() {
    let plain = plain();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&plain).unwrap();
    let (decoded, said) = decode("a.gz", encoder.finish().unwrap());
    assert_eq!((decoded == plain, given(&said)), (true, plain.len() as u64));
    let [events] = &said.values().collect::<Vec<_>>()[..] else { panic!("{said:?}") };
    // It waits from when it is there, and at its end.
    let worker = 0;
    assert_eq!(events[..2], [DecodeEvent::WaitsForOutput { worker }, DecodeEvent::Works { worker }]);
    assert_eq!(events[events.len() - 2..], [DecodeEvent::WaitsForOutput { worker }, DecodeEvent::Ends { worker }]);
    assert!(events.contains(&DecodeEvent::WaitsForInput { worker }));
}

#[test]
fn threads_decode_bzip2() {
    let plain = plain();
    let (decoded, said) = decode("a.bz2", support::bzip2::compress(&plain, 1));
    assert_eq!((decoded == plain, given(&said)), (true, plain.len() as u64));
    assert_eq!(said.keys().copied().collect::<Vec<_>>(), [0, 1]);
    for (&worker, events) in &said {
        let ends = DecodeEvent::Ends { worker };
        assert_eq!(events.first(), Some(&DecodeEvent::WaitsForInput { worker }));
        assert_eq!((events.last(), events.iter().filter(|event| **event == ends).count()), (Some(&ends), 1));
        // Whoever gives waits until it is taken, and works again.
        for place in (0..events.len()).filter(|&place| matches!(events[place], DecodeEvent::Gave { .. })) {
            let then = [DecodeEvent::WaitsForOutput { worker }, DecodeEvent::Works { worker }];
            assert_eq!(events[place + 1..place + 3], then);
        }
    }
}

#[test]
fn plain_bytes_have_no_decoder() {
    let (decoded, said) = decode("a.csv", b"id\n1\n".to_vec());
    assert_eq!((decoded.as_slice(), said.len()), (&b"id\n1\n"[..], 0));
}
