//! AWS Signature Version 4 in the `Authorization` header, verified.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>

use std::{collections::BTreeSet, fmt::Write};

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};

use super::{
    answer::S3Error,
    xml::{hex, uri_encode, uri_encode_path},
};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// S3 refuses requests whose time is further from its own.
const MAX_SKEW_SECONDS: i64 = 15 * 60;

#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) access_key: String,
    pub(super) secret_key: String,
    pub(super) session_token: Option<String>,
}

/// What the signature says of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Unsigned,
    /// Its SHA-256 as 64 lower-case digits.
    Sha256(String),
}

/// The parts of a request that are signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// As sent, with its escapes.
    pub(super) path: &'a str,
    /// As sent, with its escapes, without `?`.
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
}

/// Whether the request was signed with these credentials, close to `now`. The caller has seen that there is an
/// `Authorization` header.
pub(super) fn verify(request: Signed<'_>, credentials: &Credentials, now: Timestamp) -> Result<Payload, S3Error> {
    let authorization = Authorization::parse(header(request.headers, "authorization"))?;
    if authorization.access_key != credentials.access_key {
        let error = S3Error::forbidden(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        );
        return Err(error.with("AWSAccessKeyId", authorization.access_key));
    }
    let time = header(request.headers, "x-amz-date");
    let Some(instant) = DateTime::strptime(TIME_FORMAT, time).ok().and_then(|at| at.to_zoned(TimeZone::UTC).ok())
    else {
        return Err(S3Error::forbidden(
            "AccessDenied",
            "AWS authentication requires a valid Date or x-amz-date header",
        ));
    };
    if (instant.timestamp().as_second() - now.as_second()).abs() > MAX_SKEW_SECONDS {
        let message = "The difference between the request time and the current time is too large.";
        return Err(S3Error::forbidden("RequestTimeTooSkewed", message).with("RequestTime", time));
    }
    if !time.starts_with(authorization.date) {
        return Err(malformed("Invalid credential date. This date is not the same as X-Amz-Date."));
    }
    let payload = header(request.headers, "x-amz-content-sha256");
    let verdict = match payload {
        "UNSIGNED-PAYLOAD" => Payload::Unsigned,
        hash if hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) => {
            Payload::Sha256(hash.to_owned())
        }
        other if other.starts_with("STREAMING-") => return Err(S3Error::not_implemented()),
        "" => {
            let message = "Missing required header for this request: x-amz-content-sha256";
            return Err(S3Error::bad_request("InvalidRequest", message));
        }
        _ => {
            let message = "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, or a valid sha256 value.";
            return Err(S3Error::bad_request("InvalidArgument", message));
        }
    };
    authorization.check_coverage(request.headers)?;
    let canonical = canonical_request(request, &authorization.signed_headers, payload);
    let to_sign = string_to_sign(&canonical, time, &authorization.scope());
    if signature(&credentials.secret_key, &authorization, &to_sign) != authorization.signature {
        let message = "The request signature we calculated does not match the signature you provided. Check your key \
                       and signing method.";
        return Err(S3Error::forbidden("SignatureDoesNotMatch", message)
            .with("AWSAccessKeyId", authorization.access_key)
            .with("StringToSign", &to_sign)
            .with("SignatureProvided", authorization.signature)
            .with("CanonicalRequest", &canonical));
    }
    let token = header(request.headers, "x-amz-security-token");
    if token != credentials.session_token.as_deref().unwrap_or_default() {
        let message = "The provided token is malformed or otherwise invalid.";
        return Err(S3Error::bad_request("InvalidToken", message));
    }
    Ok(verdict)
}

/// `AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=HEX`
#[derive(Debug)]
struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: BTreeSet<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Result<Self, S3Error> {
        let Some(fields) = header.strip_prefix(ALGORITHM) else {
            return Err(S3Error::bad_request("InvalidArgument", "Unsupported Authorization Type"));
        };
        let field = |name: &str| {
            let mut fields = fields.split(',').filter_map(|field| field.trim().split_once('='));
            fields.find(|(other, _)| *other == name).map(|(_, value)| value)
        };
        let (Some(credential), Some(signed_headers), Some(signature)) =
            (field("Credential"), field("SignedHeaders"), field("Signature"))
        else {
            return Err(malformed("The authorization header is malformed; a field is missing."));
        };
        // The access key itself may hold slashes; the scope behind it may not.
        let mut scope = credential.rsplitn(5, '/');
        let (Some("aws4_request"), Some(service), Some(region), Some(date), Some(access_key)) =
            (scope.next(), scope.next(), scope.next(), scope.next(), scope.next())
        else {
            return Err(malformed("The authorization header is malformed; the Credential is mal-formed."));
        };
        if service != "s3" {
            return Err(malformed("The authorization header is malformed; incorrect service. It must be 's3'."));
        }
        Ok(Self { access_key, date, region, service, signed_headers: signed_headers.split(';').collect(), signature })
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.date, self.region, self.service)
    }

    /// `host` and every `x-amz-` header sent must be signed.
    fn check_coverage(&self, headers: &HeaderMap) -> Result<(), S3Error> {
        let amz = headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-"));
        match amz.chain(["host"]).find(|name| !self.signed_headers.contains(name)) {
            None => Ok(()),
            Some(name) => {
                let message = "There were headers present in the request which were not signed";
                Err(S3Error::forbidden("AccessDenied", message).with("HeadersNotSigned", name))
            }
        }
    }
}

fn canonical_request(request: Signed<'_>, signed_headers: &BTreeSet<&str>, payload: &str) -> String {
    let mut out = format!("{}\n{}\n", request.method, uri_encode_path(&decode(request.path)));
    let mut pairs: Vec<_> = request
        .query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| format!("{}={}", uri_encode(&decode_form(name)), uri_encode(&decode_form(value))))
        .collect();
    pairs.sort_unstable();
    let _ = writeln!(out, "{}", pairs.join("&"));
    for name in signed_headers {
        let values = request.headers.get_all(*name).iter();
        let values: Vec<_> = values
            .map(|value| {
                String::from_utf8_lossy(value.as_bytes()).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
            })
            .collect();
        let _ = writeln!(out, "{name}:{}", values.join(","));
    }
    let names: Vec<_> = signed_headers.iter().copied().collect();
    let _ = write!(out, "\n{}\n{payload}", names.join(";"));
    out
}

fn string_to_sign(canonical: &str, time: &str, scope: &str) -> String {
    format!("{ALGORITHM}\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)))
}

fn signature(secret_key: &str, authorization: &Authorization<'_>, to_sign: &str) -> String {
    let steps = [authorization.date, authorization.region, authorization.service, "aws4_request"];
    let seed = format!("AWS4{secret_key}").into_bytes();
    let key = steps.iter().fold(seed, |key, step| hmac_sha256(&key, step));
    hex(&hmac_sha256(&key, to_sign))
}

fn hmac_sha256(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode_str(text).collect()
}

fn decode_form(text: &str) -> Vec<u8> {
    decode(&text.replace('+', " "))
}

fn malformed(message: &str) -> S3Error {
    S3Error::bad_request("AuthorizationHeaderMalformed", message)
}

/// The examples that AWS publishes:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html#example-signature-calculations>
#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn credentials() -> Credentials {
        Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        }
    }

    fn headers(pairs: &[(&'static str, &str)], signed: &str, signature: &str) -> HeaderMap {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders={signed},Signature={signature}"
        );
        let common = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-date", "20130524T000000Z"),
            ("authorization", &authorization),
        ];
        common.iter().chain(pairs).map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn check(
        method: &str,
        path: &str,
        query: &str,
        headers: &HeaderMap,
        credentials: &Credentials,
    ) -> Result<Payload, S3Error> {
        let now = "2013-05-24T00:00:00Z".parse().unwrap();
        verify(Signed { method, path, query, headers }, credentials, now)
    }

    #[test]
    fn the_published_example_of_a_get_is_accepted_and_nothing_beside_it() {
        let pairs = [("range", "bytes=0-9"), ("x-amz-content-sha256", EMPTY)];
        let signed = "host;range;x-amz-content-sha256;x-amz-date";
        let good = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        let request = headers(&pairs, signed, good);
        let payload = check("GET", "/test.txt", "", &request, &credentials()).expect("the signature matches");
        assert_eq!(payload, Payload::Sha256(EMPTY.to_owned()));

        let canonical = canonical_request(
            Signed { method: "GET", path: "/test.txt", query: "", headers: &request },
            &signed.split(';').collect(),
            EMPTY,
        );
        assert_eq!(
            hex(&Sha256::digest(&canonical)),
            "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972"
        );

        let code = |result: Result<Payload, S3Error>| result.expect_err("refused").code().to_owned();
        assert_eq!(code(check("HEAD", "/test.txt", "", &request, &credentials())), "SignatureDoesNotMatch");
        assert_eq!(code(check("GET", "/test.tx", "", &request, &credentials())), "SignatureDoesNotMatch");
        assert_eq!(code(check("GET", "/test.txt", "a", &request, &credentials())), "SignatureDoesNotMatch");
        let other = Credentials { secret_key: "another".to_owned(), ..credentials() };
        assert_eq!(code(check("GET", "/test.txt", "", &request, &other)), "SignatureDoesNotMatch");
        let other = Credentials { access_key: "AKIAOTHER".to_owned(), ..credentials() };
        assert_eq!(code(check("GET", "/test.txt", "", &request, &other)), "InvalidAccessKeyId");
        let other = Credentials { session_token: Some("token".to_owned()), ..credentials() };
        assert_eq!(code(check("GET", "/test.txt", "", &request, &other)), "InvalidToken");

        let late = "2013-05-24T00:15:01Z".parse().unwrap();
        let signed = Signed { method: "GET", path: "/test.txt", query: "", headers: &request };
        assert_eq!(code(verify(signed, &credentials(), late)), "RequestTimeTooSkewed");

        let mut more = request.clone();
        more.insert("x-amz-security-token", "token".parse().unwrap());
        assert_eq!(code(check("GET", "/test.txt", "", &more, &credentials())), "AccessDenied");
        let mut range = request.clone();
        range.insert("range", "bytes=0-8".parse().unwrap());
        assert_eq!(code(check("GET", "/test.txt", "", &range, &credentials())), "SignatureDoesNotMatch");
        let mut basic = request.clone();
        basic.insert("authorization", "Basic YTpi".parse().unwrap());
        assert_eq!(code(check("GET", "/test.txt", "", &basic, &credentials())), "InvalidArgument");
    }

    #[test]
    fn the_published_example_of_a_listing_is_accepted() {
        let request = headers(
            &[("x-amz-content-sha256", EMPTY)],
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        );
        check("GET", "/", "max-keys=2&prefix=J", &request, &credentials()).expect("the signature matches");
        check("GET", "/", "prefix=%4A&max-keys=2", &request, &credentials()).expect("the order does not matter");
    }

    #[test]
    fn the_published_example_of_a_subresource_is_accepted() {
        let request = headers(
            &[("x-amz-content-sha256", EMPTY)],
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        );
        check("GET", "/", "lifecycle", &request, &credentials()).expect("the signature matches");
    }

    #[test]
    fn the_published_example_of_a_put_is_accepted() {
        let hash = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        assert_eq!(hex(&Sha256::digest("Welcome to Amazon S3.")), hash);
        let request = headers(
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ("x-amz-content-sha256", hash),
            ],
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        );
        let payload = check("PUT", "/test$file.text", "", &request, &credentials()).expect("the signature matches");
        assert_eq!(payload, Payload::Sha256(hash.to_owned()));
    }
}
