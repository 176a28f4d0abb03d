//! What stands before the content of an entry: a ustar header, and a pax header before it where ustar cannot say it.
//!
//! Names of more than 100 bytes stand in a pax header. ustar could split them at a `/` alone, and they have none; what knows no
//! pax cuts them. Both headers depend on the name, the length and the time alone: mode 0644, owner and group 0 without names.

/// A block of a tar.
pub(crate) const BLOCK: usize = 512;

/// The end of a tar.
pub(crate) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// The longest name, in bytes, that a ustar header holds without a folder.
const LONGEST_NAME: usize = 100;

/// The greatest number that eleven octal digits hold: 8 GiB less one, and a second in the year 2242.
const GREATEST: u64 = 0o777_7777_7777;

/// How many bytes of the tar an entry takes.
pub(crate) fn entry_len(name: &str, len: u64, mtime: i64) -> u64 {
    // A name has 255 bytes at most, so that all records fit into a block.
    let pax = if needs_pax(name, len, mtime) { 2 * BLOCK as u64 } else { 0 };
    pax + BLOCK as u64 + len.next_multiple_of(BLOCK as u64)
}

fn needs_pax(name: &str, len: u64, mtime: i64) -> bool {
    name.len() > LONGEST_NAME || len > GREATEST || octal_time(mtime).is_none()
}

fn octal_time(mtime: i64) -> Option<u64> {
    u64::try_from(mtime).ok().filter(|&mtime| mtime <= GREATEST)
}

/// Appends the header or headers of an entry.
pub(crate) fn write(into: &mut Vec<u8>, name: &str, len: u64, mtime: i64) {
    if needs_pax(name, len, mtime) {
        let mut records = Vec::new();
        if octal_time(mtime).is_none() {
            record(&mut records, "mtime", &mtime.to_string());
        }
        if name.len() > LONGEST_NAME {
            record(&mut records, "path", name);
        }
        if len > GREATEST {
            record(&mut records, "size", &len.to_string());
        }
        header(into, "././@PaxHeader", records.len() as u64, 0, b'x');
        pad(&mut records);
        into.extend_from_slice(&records);
    }
    let short = &name[..name.len().min(LONGEST_NAME)];
    header(into, short, if len > GREATEST { 0 } else { len }, octal_time(mtime).unwrap_or(0), b'0');
}

/// Appends zeros up to the next border of blocks.
pub(crate) fn pad(into: &mut Vec<u8>) {
    into.resize(into.len().next_multiple_of(BLOCK), 0);
}

fn header(into: &mut Vec<u8>, name: &str, len: u64, mtime: u64, kind: u8) {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], len);
    octal(&mut block[136..148], mtime);
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], 0);
    octal(&mut block[337..345], 0);
    let sum = block.iter().map(|&byte| u64::from(byte)).sum();
    // Six digits, a NUL, and the space that is there.
    octal(&mut block[148..155], sum);
    into.extend_from_slice(&block);
}

/// Fills a field with octal digits and a NUL.
fn octal(field: &mut [u8], mut value: u64) {
    let Some((end, digits)) = field.split_last_mut() else { return };
    *end = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Appends a pax record: its length with the length's own digits, a space, the key, `=`, the value, a line end.
fn record(into: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    into.extend_from_slice(format!("{len} {key}={value}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, len: u64, mtime: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, name, len, mtime);
        assert_eq!(bytes.len() as u64 + len.next_multiple_of(512), entry_len(name, len, mtime));
        bytes
    }

    #[test]
    fn a_short_name_takes_a_plain_header() {
        let header = written("17.json", 5, 1_400_000_000);
        assert_eq!(&header[..8], b"17.json\0");
        assert_eq!(&header[100..157], b"0000644\x000000000\x000000000\x0000000000005\x0012334447000\x00010356\0 0");
        assert_eq!(&header[257..265], b"ustar\x0000");
    }

    #[test]
    fn what_ustar_cannot_say_stands_in_pax_records() {
        let long = format!("{}.json", "a".repeat(96));
        let records = |bytes: &[u8]| {
            assert_eq!(bytes[156], b'x');
            let len = bytes[512..1024].iter().position(|&byte| byte == 0).unwrap();
            String::from_utf8(bytes[512..512 + len].to_vec()).unwrap()
        };
        assert_eq!(records(&written(&long, 1, 1)), format!("111 path={long}\n"));
        assert_eq!(records(&written("a.json", 1, -1)), "12 mtime=-1\n");
        assert_eq!(records(&written("a.json", 1, 1 << 33)), "20 mtime=8589934592\n");
        assert_eq!(records(&written("a.json", 1 << 33, 0)), "19 size=8589934592\n");
        assert_eq!(written("a.json", 1, (1 << 33) - 1).len(), 512);
    }
}
