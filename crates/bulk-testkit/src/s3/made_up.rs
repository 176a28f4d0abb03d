//! Content that follows from its offset, so that it is held nowhere.

/// Fills `buffer` with what [`Object::made_up`](super::Object::made_up) of this seed has from `offset` on, whatever its
/// size.
///
/// Each of the 8-byte words at multiples of 8 is another one within an object, so bytes that went astray show. No two
/// small seeds have a stretch in common. One core makes several gigabytes a second.
///
/// ```
/// use bulk_testkit::s3::made_up;
///
/// let (mut whole, mut tail) = ([0; 100], [0; 37]);
/// made_up(7, 1000, &mut whole);
/// made_up(7, 1063, &mut tail);
/// assert_eq!(whole[63..], tail);
/// ```
pub fn made_up(seed: u64, offset: u64, buffer: &mut [u8]) {
    let key = mixed(seed);
    let mut index = key.wrapping_add(offset / 8);
    let within = (offset % 8) as usize;
    let (head, rest) = buffer.split_at_mut(if within > 0 { buffer.len().min(8 - within) } else { 0 });
    if within > 0 {
        head.copy_from_slice(&word(index)[within..within + head.len()]);
        index = index.wrapping_add(1);
    }
    let mut words = rest.chunks_exact_mut(8);
    for bytes in &mut words {
        bytes.copy_from_slice(&word(index));
        index = index.wrapping_add(1);
    }
    let tail = words.into_remainder();
    tail.copy_from_slice(&word(index)[..tail.len()]);
}

/// Both steps can be undone, so no two indices share a word.
fn word(index: u64) -> [u8; 8] {
    let product = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product ^ (product >> 32)).to_le_bytes()
}

/// Where in the sequence of all words a seed starts (the finaliser of `splitmix64`).
pub(super) fn mixed(seed: u64) -> u64 {
    let x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
