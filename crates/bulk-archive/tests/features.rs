//! A codec is known whether or not this build can decode it.

mod support;

use bulk_archive::{Codec, Error};
use support::{decode, sample};

#[test]
fn a_codec_without_its_feature_is_named() {
    let files: [(&[u8], Codec, bool); 4] = [
        (include_bytes!("data/bzip2.csv.bz2"), Codec::Bzip2, cfg!(feature = "bzip2")),
        (include_bytes!("data/gzip.csv.gz"), Codec::Gzip, cfg!(feature = "gzip")),
        (include_bytes!("data/xz.csv.xz"), Codec::Xz, cfg!(feature = "xz")),
        (include_bytes!("data/zstd.csv.zst"), Codec::Zstd, cfg!(feature = "zstd")),
    ];
    for (bytes, expected, enabled) in files {
        match decode(bytes, "sample") {
            Ok(plain) if enabled => assert_eq!(plain, sample()),
            Err(Error::CodecDisabled { file, codec }) if !enabled => {
                assert_eq!((file.as_str(), codec), ("sample", expected))
            }
            other => panic!("{expected}: {:?}", other.map(|plain| plain.len())),
        }
    }
    assert_eq!(decode(&sample(), "sample.csv").unwrap(), sample());
}
