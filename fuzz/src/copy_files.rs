//! NDJSON and COPY's own formats: as CSV's records, these do not depend on how their bytes arrive.

use bulk_pg::fuzzing::File;
use bulk_pg::{InputFormat, RecordOptions};

use crate::{Take, Trickle};

/// The borders at which reading is taken up again, at most.
const RESUMED: usize = 12;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let format = take.one_of(&[InputFormat::Ndjson, InputFormat::CopyText, InputFormat::CopyBinary]);
    let mut options = RecordOptions::default();
    options.chunk_size = u64::from(take.byte());
    if let limit @ 1.. = take.byte() {
        options.max_record = usize::from(limit);
    }
    let mut small = options.clone();
    small.buffer_size = 1 + usize::from(take.byte());
    let sizes = [usize::from(take.byte()), usize::from(take.byte())];
    let bytes = take.rest();

    let Some(file) = File::new(format, bytes) else { return };
    let start = file.start();
    let first = &bytes[start.offset as usize..];
    let whole = file.read(first, start, options);
    assert_eq!(file.read(Trickle::new(first, sizes), start, small.clone()), whole);
    let (mut before, mut left) = (start, RESUMED);
    for (number, record) in whole.iter().enumerate() {
        let after = record.after;
        assert!(after.offset >= before.offset && after.offset <= bytes.len() as u64);
        if after.chunk != before.chunk && left > 0 {
            left -= 1;
            let rest = Trickle::new(&bytes[after.offset as usize..], sizes);
            assert_eq!(file.read(rest, after, small.clone()), whole[number + 1..]);
        }
        before = after;
    }
}
