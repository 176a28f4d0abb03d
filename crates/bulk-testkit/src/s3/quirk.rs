//! What some servers always do otherwise.

/// A lasting difference between a server and S3, as other servers have them; several add up. What happens now and then
/// is a [`Fault`](super::Fault).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quirk {
    /// `501 NotImplemented` for ListObjectsV2.
    V2NotImplemented,
    /// `400 InvalidArgument` for ListObjectsV2.
    V2Refused,
    /// Takes `list-type=2` for a parameter without a meaning, and the request for one of ListObjects: the answer is of
    /// that form, and `start-after` and `continuation-token` are passed over.
    V2Ignored,
    /// Passes over the `start-after` of ListObjectsV2: the listing begins with the first key.
    StartAfterIgnored,
    /// Lists in an order that follows from the keys and is not theirs, as directory buckets do. The `start-after` of
    /// ListObjectsV2 is passed over; markers are places in that order. Each page is made by a walk over all keys below
    /// its prefix, so this is for buckets of some ten thousand keys.
    Unordered,
    /// Passes over `encoding-type`: keys stand in the XML as they are, and no `EncodingType` is answered.
    EncodingIgnored,
    /// `403 AccessDenied` for a listing whose prefix starts with this one. A listing from further above tells of the
    /// keys, and they can be fetched, as with a policy for `s3:prefix`.
    ForbiddenPrefix(String),
    /// Takes UploadPartCopy for an UploadPart whose body is empty.
    CopySourceIgnored,
    /// Passes over the range of UploadPartCopy: all of the object is copied.
    CopyRangeIgnored,
    /// Passes over the `x-amz-copy-source-if-match` of UploadPartCopy: whichever object is there is copied.
    CopyIfMatchIgnored,
    /// Does not come to an end with any UploadPartCopy: `504`, as of a gateway.
    CopyTimesOut,
}

/// All that differs.
#[derive(Clone, Debug, Default)]
pub(super) struct Quirks {
    pub(super) v2: V2,
    pub(super) ignores_start_after: bool,
    pub(super) is_unordered: bool,
    pub(super) ignores_encoding: bool,
    pub(super) forbidden: Vec<String>,
    pub(super) ignores_copy_source: bool,
    pub(super) ignores_copy_range: bool,
    pub(super) ignores_copy_if_match: bool,
    pub(super) copy_times_out: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum V2 {
    #[default]
    Known,
    NotImplemented,
    Refused,
    Ignored,
}

impl Quirks {
    /// Of several about the same, the last one counts.
    pub(super) fn add(&mut self, quirk: Quirk) {
        match quirk {
            Quirk::V2NotImplemented => self.v2 = V2::NotImplemented,
            Quirk::V2Refused => self.v2 = V2::Refused,
            Quirk::V2Ignored => self.v2 = V2::Ignored,
            Quirk::StartAfterIgnored => self.ignores_start_after = true,
            Quirk::Unordered => self.is_unordered = true,
            Quirk::EncodingIgnored => self.ignores_encoding = true,
            Quirk::ForbiddenPrefix(prefix) => self.forbidden.push(prefix),
            Quirk::CopySourceIgnored => self.ignores_copy_source = true,
            Quirk::CopyRangeIgnored => self.ignores_copy_range = true,
            Quirk::CopyIfMatchIgnored => self.ignores_copy_if_match = true,
            Quirk::CopyTimesOut => self.copy_times_out = true,
        }
    }
}
