use std::fmt;

use bulk_core::ETag;

use crate::Error;

/// An object that a sync could neither fetch nor store. It is not marked known, so the next run tries again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Quarantined {
    /// Its key.
    pub key: String,
    /// The ETag: of the version that was fetched, else of the one that was listed.
    pub etag: Option<ETag>,
    /// Why.
    pub reason: QuarantineReason,
}

/// Why an object was quarantined.
#[derive(Debug)]
#[non_exhaustive]
pub enum QuarantineReason {
    /// It is gone since the listing.
    Gone,
    /// It is forbidden to us.
    Denied(bulk_core::Error),
    /// It is larger than the [budget](bulk_core::ObjectOptions::budget).
    TooLarge(bulk_core::Error),
    /// It could not be fetched for another reason: it is corrupt, it changed while it was looked at, its key cannot be asked
    /// for, or the server does not accept the request.
    Unfetched(bulk_core::Error),
    /// The sink or the store cannot hold it: what they say.
    Refused(String),
}

impl fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is gone since the listing"),
            Self::Denied(error) | Self::TooLarge(error) | Self::Unfetched(error) => error.fmt(f),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

/// Codes of S3 that tell of the credentials and the account, and not of the object
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
const OF_THE_ASKER: [&str; 13] = [
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "PermanentRedirect",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnauthorizedAccess",
];

impl QuarantineReason {
    /// Why this object alone could not be had; or the error, if others will not fare better. `bucket` is what the source
    /// calls all of its objects.
    pub(super) fn of(error: bulk_core::Error, bucket: &str) -> Result<Self, Error> {
        use bulk_core::Error as Cause;
        let code = |reason: &Option<String>| {
            reason.as_deref().and_then(|reason| reason.split_whitespace().next()).unwrap_or_default().to_owned()
        };
        match &error {
            Cause::NotFound { .. } => Ok(Self::Gone),
            // Without credentials there is no request for the object.
            Cause::Denied { location, reason }
                if location.trim_end_matches('/') != bucket.trim_end_matches('/')
                    && !OF_THE_ASKER.contains(&code(reason).as_str()) =>
            {
                Ok(Self::Denied(error))
            }
            Cause::TooLarge { .. } => Ok(Self::TooLarge(error)),
            Cause::Changed { .. } | Cause::Corrupt { .. } | Cause::Unexpected { .. } | Cause::Url { .. } => {
                Ok(Self::Unfetched(error))
            }
            Cause::Status { status: 400..=499, reason, .. }
                if !error.is_transient() && !OF_THE_ASKER.contains(&code(reason).as_str()) =>
            {
                Ok(Self::Unfetched(error))
            }
            _ => Err(error.into()),
        }
    }
}
