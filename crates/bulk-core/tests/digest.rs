//! Digests against the vectors of their standards and against other implementations.

use std::io::{self, Read};
use std::process::Command;

use bulk_core::{Algorithm, Crc64Nvme, Digest, ETag, Hasher, MultipartEtag, MultipartVerdict};
use md5::{Digest as _, Md5};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// CRC-64/NVME, bit by bit, from the parameters of the specification.
fn bitwise(bytes: &[u8]) -> u64 {
    let mut register = u64::MAX;
    for byte in bytes {
        register ^= u64::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register >>= 1;
            if carry == 1 {
                register ^= 0xad93_d235_94c9_3659_u64.reverse_bits();
            }
        }
    }
    !register
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

#[test]
fn the_vectors_of_the_standards() {
    let hex = |algorithm, bytes: &[u8]| Digest::of(algorithm, bytes).to_hex();
    // FIPS 180-4, examples of NIST.
    for (message, expected) in [
        (&b""[..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (&[b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ] {
        assert_eq!(hex(Algorithm::Sha256, message), expected);
    }
    // RFC 1321, A.5.
    for (message, expected) in [
        (&b""[..], "d41d8cd98f00b204e9800998ecf8427e"),
        (b"a", "0cc175b9c0f1b6a831c399e269772661"),
        (b"abc", "900150983cd24fb0d6963f7d28e17f72"),
        (b"message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        (b"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
    ] {
        assert_eq!(hex(Algorithm::Md5, message), expected);
    }
    // The check values of the catalogue of parametrised CRCs.
    assert_eq!(hex(Algorithm::Crc32, b"123456789"), "cbf43926");
    assert_eq!(hex(Algorithm::Crc32c, b"123456789"), "e3069283");
    assert_eq!(hex(Algorithm::Crc64Nvme, b"123456789"), "ae8b14860a799888");
    // RFC 3720, B.4.
    assert_eq!(hex(Algorithm::Crc32c, &[0; 32]), "8a9136aa");
    assert_eq!(hex(Algorithm::Crc32c, &[0xff; 32]), "62a8ab43");
    // NVM Command Set specification, 5.2.1.3.5.
    assert_eq!(hex(Algorithm::Crc64Nvme, &[0; 4096]), "6482d367eb22b64e");
    assert_eq!(hex(Algorithm::Crc64Nvme, &[0xff; 4096]), "c0ddba7302eca3ac");
    let increasing: Vec<u8> = (0..=255).cycle().take(4096).collect();
    assert_eq!(hex(Algorithm::Crc64Nvme, &increasing), "3e729f5f6750449c");
}

#[test]
fn text_is_the_algorithm_and_its_value_as_people_meet_it() {
    let texts = [
        "crc32:y/Q5Jg==",
        "crc32c:4waSgw==",
        "crc64nvme:rosUhgp5mIg=",
        "md5:25f9e794323b453885f5181f1b624d0b",
        "sha256:15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    ];
    for (algorithm, text) in Algorithm::ALL.into_iter().zip(texts) {
        let digest = Digest::of(algorithm, b"123456789");
        assert_eq!(digest.algorithm(), algorithm);
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{text}\"")).unwrap(), digest);
        assert_eq!(Digest::from_hex(algorithm, &digest.to_hex().to_uppercase()), Ok(digest));
        assert_eq!(Digest::from_base64(algorithm, &digest.to_base64()), Ok(digest));
    }
    let mut strongest = Algorithm::ALL;
    strongest.sort();
    assert_eq!(strongest, Algorithm::ALL);
}

#[test]
fn text_that_is_no_digest_is_refused_with_its_reason() {
    let reason = |text: &str| text.parse::<Digest>().unwrap_err().reason;
    assert_eq!(reason("d41d8cd98f00b204e9800998ecf8427e"), "it names no algorithm");
    assert_eq!(reason("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709"), "no such algorithm is known");
    assert_eq!(reason("md5:d41d8cd98f00b204e9800998ecf8427"), "it is not hexadecimal");
    assert_eq!(reason("md5:d41d8cd98f00b204e9800998ecf8427g"), "it is not hexadecimal");
    assert_eq!(reason("md5:+41d8cd98f00b204e9800998ecf8427e"), "it is not hexadecimal");
    assert_eq!(reason("md5:ää"), "it is not hexadecimal");
    assert_eq!(reason("md5:d41d8cd98f00b204e9800998ecf842"), "its length is not the algorithm's");
    assert_eq!(reason("sha256:"), "its length is not the algorithm's");
    assert_eq!(reason("crc32:AAAAAAAAAAA="), "its length is not the algorithm's");
    // A composite checksum of three parts.
    assert_eq!(reason("crc32:y/Q5Jg==-3"), "it is not base64");
    assert_eq!(reason("crc32:y/Q5Jg"), "it is not base64");
    let error = "md5:x".parse::<Digest>().unwrap_err();
    assert_eq!(error.to_string(), "\"x\" is not a digest: it is not hexadecimal");
}

#[test]
#[cfg(target_os = "linux")]
fn coreutils_find_the_same_digests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bytes");
    for len in [0, 1, 55, 56, 63, 64, 65, 4096, 1_000_003] {
        let bytes = pattern(len);
        std::fs::write(&path, &bytes).unwrap();
        let mut hasher = Hasher::new(&[Algorithm::Sha256, Algorithm::Md5]);
        assert_eq!(io::copy(&mut &bytes[..], &mut hasher).unwrap(), len as u64);
        let found = hasher.finish();
        for (tool, digest) in ["sha256sum", "md5sum"].into_iter().zip(found) {
            let output = Command::new(tool).arg(&path).output().unwrap();
            let line = String::from_utf8(output.stdout).unwrap();
            assert_eq!(line.split(' ').next(), Some(digest.to_hex().as_str()), "{tool} of {len} bytes");
        }
    }
}

#[test]
fn a_hasher_of_nothing_and_of_no_algorithm() {
    assert_eq!(Hasher::new(&[]).finish(), []);
    let empty = Hasher::new(&Algorithm::ALL).finish();
    assert_eq!(empty, Algorithm::ALL.map(|algorithm| Digest::of(algorithm, b"")));
    assert_eq!(empty[..3], [Digest::Crc32(0), Digest::Crc32c(0), Digest::Crc64Nvme(0)]);
}

#[test]
fn a_stretch_survives_its_record() {
    let mut crc = Crc64Nvme::of(b"1234");
    assert_eq!((crc.len(), crc.is_empty()), (4, false));
    assert_eq!(Crc64Nvme::from_parts(crc.value(), crc.len()), crc);
    crc = serde_json::from_str(&serde_json::to_string(&crc).unwrap()).unwrap();
    crc.update(b"56789");
    assert_eq!(crc.digest(), Digest::Crc64Nvme(0xae8b_1486_0a79_9888));
    assert_eq!(Crc64Nvme::new().then(crc), crc);
    assert_eq!(crc.then(Crc64Nvme::new()), crc);
    assert_eq!(Crc64Nvme::new(), Crc64Nvme::default());
}

proptest! {
    #[test]
    fn any_split_in_any_order_of_merging_gives_the_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 20),
    ) {
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        borders.extend([0, bytes.len()]);
        borders.sort();
        let mut stretches: Vec<Crc64Nvme> = borders.windows(2).map(|w| Crc64Nvme::of(&bytes[w[0]..w[1]])).collect();
        for pick in picks {
            if stretches.len() > 1 {
                let first = pick.index(stretches.len() - 1);
                let second = stretches.remove(first + 1);
                stretches[first] = stretches[first].then(second);
            }
        }
        prop_assert_eq!(stretches, [Crc64Nvme::from_parts(bitwise(&bytes), bytes.len() as u64)]);
    }

    #[test]
    fn joining_agrees_with_another_implementation_for_any_length(first: u64, second: u64, len: u64, bits in 0..64u32) {
        // That implementation counts bits in 64 bits.
        let len = len >> 3 >> (bits % 61);
        let expected = crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, first, second, len);
        prop_assert_eq!(Crc64Nvme::combine(first, second, len), expected);
    }

    #[test]
    fn a_hasher_does_not_see_how_the_bytes_are_cut(
        len in 0..200_000usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let bytes = pattern(len);
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
        borders.extend([0, len]);
        borders.sort();
        let mut hasher = Hasher::new(&Algorithm::ALL);
        borders.windows(2).for_each(|w| hasher.update(&bytes[w[0]..w[1]]));
        let expected = Algorithm::ALL.map(|algorithm| Digest::of(algorithm, &bytes));
        prop_assert_eq!(hasher.finish(), expected);
    }
}

/// The tag as S3 computes it.
fn tag(bytes: &[u8], part_size: usize) -> String {
    let mut parts: Vec<[u8; 16]> = bytes.chunks(part_size).map(|part| Md5::digest(part).into()).collect();
    if parts.is_empty() {
        parts.push(Md5::digest(b"").into());
    }
    let md5 = Md5::digest(parts.concat());
    let hex: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}-{}", parts.len())
}

fn parse(tag: &str, size: u64) -> Option<MultipartEtag> {
    MultipartEtag::parse(&ETag::new(tag), size)
}

#[test]
fn the_part_sizes_of_common_clients_are_found() {
    let bytes = pattern(35_000_003);
    for part_size in [5 * MIB, 8 * MIB, 15 * MIB, 16 * MIB, 17_179_870, 10_000_000, 13 * MIB] {
        let tag = tag(&bytes, part_size as usize);
        let etag = parse(&format!("\"{tag}\""), bytes.len() as u64).unwrap();
        assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Matches { part_size }, "{tag}");
    }
    for (part_size, parts) in [(50 * MIB, 2), (64 * MIB, 5), (128 * MIB, 3), (100 * MIB, 700), (512 * MIB, 2)] {
        let etag = parse(&format!("{:032}-{parts}", 0), part_size * parts - 1).unwrap();
        assert!(etag.part_sizes().contains(&part_size), "{part_size}: {:?}", etag.part_sizes());
    }
}

#[test]
fn other_bytes_and_other_parts_are_unknown() {
    let mut bytes = pattern(20_000_000);
    let size = bytes.len() as u64;
    let etag = parse(&tag(&bytes, 8 << 20), size).unwrap();
    assert_eq!(etag.parts(), 3);
    assert_eq!(etag.verify(&bytes[1..]).unwrap(), MultipartVerdict::Unknown);
    assert_eq!(etag.verify((&bytes[..]).chain(&b"x"[..])).unwrap(), MultipartVerdict::Unknown);
    bytes[12_345_678] ^= 1;
    assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Unknown);

    let uneven = [&bytes[..7_000_001], &bytes[7_000_001..]].map(|part| <[u8; 16]>::from(Md5::digest(part)));
    let md5: String = Md5::digest(uneven.concat()).iter().map(|byte| format!("{byte:02x}")).collect();
    let etag = parse(&format!("{md5}-2"), size).unwrap();
    assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Unknown);
}

#[test]
fn part_sizes_can_be_named() {
    let bytes = pattern(100);
    let etag = parse(&tag(&bytes, 30), 100).unwrap();
    assert_eq!(etag.part_sizes(), [0; 0]);
    assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Unknown);
    let etag = etag.with_part_sizes(&[0, 50, 25, 26, 30, 30, 34]);
    assert_eq!(etag.part_sizes(), [25, 26, 30]);
    assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Matches { part_size: 30 });
    // Part borders fall on the borders of the pieces, between them, and several into one.
    for piece in [1, 7, 30, 64, 100] {
        let mut hasher = etag.hasher();
        bytes.chunks(piece).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish(), MultipartVerdict::Matches { part_size: 30 }, "{piece}");
    }
    let exact = parse(&tag(&bytes, 25), 100).unwrap().with_part_sizes(&[25]);
    assert_eq!(exact.verify(&bytes[..]).unwrap(), MultipartVerdict::Matches { part_size: 25 });
}

#[test]
fn one_part_needs_no_guess() {
    let bytes = pattern(2_613_248);
    let etag = parse(&tag(&bytes, 8 << 20), 2_613_248).unwrap();
    assert_eq!(etag.verify(&bytes[..]).unwrap(), MultipartVerdict::Matches { part_size: 2_613_248 });
    // An empty object that was uploaded in parts; md5(md5("")), by md5sum.
    let empty = parse("59adb24ef3cdbe0297f05b395827453f-1", 0).unwrap();
    assert_eq!(empty.verify(io::empty()).unwrap(), MultipartVerdict::Matches { part_size: 1 });
}

#[test]
fn part_sizes_fit_the_count_and_stay_few() {
    let sizes = |size, parts| parse(&format!("{:032}-{parts}", 0), size).unwrap().part_sizes().to_vec();
    let tib = MIB * MIB;
    for (size, parts) in [(5 * tib, 2), (5 * tib, 10_000), (3 * tib, 1000), (100 * MIB, 2), (55_123_456_789, 6572)] {
        let found = sizes(size, parts);
        assert!(!found.is_empty() && found.len() <= 16, "{size} in {parts}: {found:?}");
        assert!(found.iter().all(|part| size.div_ceil(*part) == parts), "{size} in {parts}: {found:?}");
    }
    assert_eq!(sizes(55_123_456_789, 6572), [8 * MIB]);
    assert_eq!(sizes(24 * MIB, 3), [8 * MIB, 10 * MIB, 10_000_000, 9 * MIB, 11 * MIB]);
    // More than 10,000 parts of 8 MiB: the CLI doubles the size, others round up what is needed.
    assert_eq!(sizes(100_000 * MIB, 6250), [16 * MIB]);
    assert_eq!(sizes(100_000 * MIB + 1, 10_000), [10 * MIB + 1]);
}

#[test]
fn tags_of_another_form_are_not_multipart() {
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    assert!(parse(&format!("{md5}-2"), 10 * MIB).is_some());
    for bad in [
        md5.to_owned(),
        format!("{md5}-"),
        format!("{md5}-0"),
        format!("{md5}-+2"),
        format!("{md5}-2-2"),
        format!("{md5}-10001"),
        format!("{md5}-99999999999999999999"),
        format!("W/\"{md5}-2\""),
        "abc-2".to_owned(),
        "-2".to_owned(),
    ] {
        assert_eq!(parse(&bad, 10 * MIB), None, "{bad}");
    }
    assert_eq!(parse(&format!("{md5}-11"), 10), None);
}
