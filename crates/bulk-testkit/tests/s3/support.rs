//! An object, and clients: reqwest, quick-xml, and bare sockets where a client would tidy up the URL.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use bulk_testkit::s3::{Server, Store};
use quick_xml::{Reader, events::Event};
use reqwest::{Client, Response, StatusCode};

pub(crate) type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

pub(crate) const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz";
/// `printf abcdefghijklmnopqrstuvwxyz | md5sum`
pub(crate) const ALPHABET_MD5: &str = "c3fcd3d76192e4007dfb496cca67e13b";

pub(crate) fn alphabet() -> Result<Server> {
    Ok(Server::builder().bucket("b", Store::memory().with("abc", ALPHABET)).start()?)
}

/// Does not decode, redirect, or use a proxy.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

pub(crate) async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = client().get(format!("{}{path}", server.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(request.send().await?)
}

pub(crate) fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// An answer as it came over a connection that was read to its end.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) end: io::Result<()>,
}

impl Raw {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
}

/// Sends the path to the letter.
pub(crate) fn raw(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Raw> {
    let mut stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: loopback\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if matches!(method, "PUT" | "POST") {
        request += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{request}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    let Some(split) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(format!("no head in {bytes:?}, {end:?}").into());
    };
    let head = String::from_utf8(bytes[..split].to_vec())?;
    let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok(Raw { status, head, body: bytes[split + 4..].to_vec(), end })
}

/// The leaves of a document: the path of element names below the root, and the text.
pub(crate) fn leaves(xml: &str) -> Result<Vec<(String, String)>> {
    let mut reader = Reader::from_str(xml);
    let (mut path, mut leaves, mut text) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                path.push(String::from_utf8(start.name().as_ref().to_vec())?);
                text = Some(String::new());
            }
            Event::Text(part) => {
                if let Some(text) = &mut text {
                    text.push_str(&part.decode()?);
                }
            }
            Event::GeneralRef(reference) => {
                let text = text.as_mut().ok_or("a reference between elements")?;
                match reference.resolve_char_ref()? {
                    Some(c) => text.push(c),
                    None => text.push_str(
                        quick_xml::escape::resolve_predefined_entity(&reference.decode()?).ok_or("no such entity")?,
                    ),
                }
            }
            Event::End(_) => {
                if let Some(text) = text.take() {
                    leaves.push((path[1..].join("/"), text));
                }
                path.pop();
            }
            Event::Eof => return Ok(leaves),
            _ => {}
        }
    }
}

/// The parts of a listing that tests look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) keys: Vec<String>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) token: Option<String>,
    pub(crate) truncated: bool,
    pub(crate) count: usize,
}

pub(crate) async fn list(server: &Server, query: &str) -> Result<Listing> {
    let response = get(server, &format!("/b?list-type=2{query}"), &[]).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let mut listing = Listing::default();
    for (path, text) in leaves(&response.text().await?)? {
        match path.as_str() {
            "Contents/Key" => listing.keys.push(text),
            "CommonPrefixes/Prefix" => listing.prefixes.push(text),
            "NextContinuationToken" => listing.token = Some(text),
            "IsTruncated" => listing.truncated = text == "true",
            "KeyCount" => listing.count = text.parse()?,
            _ => {}
        }
    }
    Ok(listing)
}

/// All pages: their keys and prefixes together, and how many there were.
pub(crate) async fn list_all(server: &Server, query: &str) -> Result<(Vec<String>, Vec<String>, Vec<usize>)> {
    let (mut keys, mut prefixes, mut counts, mut token) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    loop {
        let page = list(server, &format!("{query}{token}")).await?;
        assert_eq!(page.truncated, page.token.is_some());
        assert_eq!(page.count, page.keys.len() + page.prefixes.len());
        keys.extend(page.keys);
        prefixes.extend(page.prefixes);
        counts.push(page.count);
        match page.token {
            Some(next) => token = format!("&continuation-token={next}"),
            None => return Ok((keys, prefixes, counts)),
        }
    }
}

/// One entry of a listing of any kind, decoded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    Key(String),
    Prefix(String),
    /// Key, version, and whether it is the newest.
    Version(String, String, bool),
    DeleteMarker(String, String, bool),
}

/// A page of a listing of any kind, decoded.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    pub(crate) truncated: bool,
    /// The parameters of the next request that this page names.
    pub(crate) next: Vec<(&'static str, String)>,
}

/// The answer to `GET /b?query`, where the query asks for `encoding-type=url`.
pub(crate) fn page(server: &Server, query: &[(&str, &str)]) -> Result<Page> {
    let answer = raw(server, "GET", &path(query), &[("x-amz-request-payer", "requester")], b"")?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, answer.text()).into());
    }
    let decode = |text: &str| -> Result<String> {
        Ok(percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8()?.into_owned())
    };
    let mut page = Page::default();
    let mut parts = Vec::new();
    for (path, text) in leaves(answer.text())? {
        match path.as_str() {
            "Contents/Key" => page.entries.push(Entry::Key(decode(&text)?)),
            "CommonPrefixes/Prefix" => page.entries.push(Entry::Prefix(decode(&text)?)),
            "Version/Key" | "DeleteMarker/Key" => parts = vec![decode(&text)?],
            "Version/VersionId" | "DeleteMarker/VersionId" => parts.push(text),
            "Version/IsLatest" => {
                let [key, version] = <[String; 2]>::try_from(std::mem::take(&mut parts)).map_err(|_| "no version")?;
                page.entries.push(Entry::Version(key, version, text == "true"));
            }
            "DeleteMarker/IsLatest" => {
                let [key, version] = <[String; 2]>::try_from(std::mem::take(&mut parts)).map_err(|_| "no version")?;
                page.entries.push(Entry::DeleteMarker(key, version, text == "true"));
            }
            "NextContinuationToken" => page.next.push(("continuation-token", text)),
            "NextMarker" => page.next.push(("marker", decode(&text)?)),
            "NextKeyMarker" => page.next.push(("key-marker", decode(&text)?)),
            "NextVersionIdMarker" => page.next.push(("version-id-marker", text)),
            "IsTruncated" => page.truncated = text == "true",
            _ => {}
        }
    }
    Ok(page)
}

/// The path and query of a request to the bucket `b`.
pub(crate) fn path(query: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%2D", "-")
    };
    let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    format!("/b?{}", pairs.join("&"))
}

/// All entries over all pages, and how many each page had. Follows what a page says, or, as ListObjects demands without
/// a delimiter, its last key.
pub(crate) fn all_pages(server: &Server, query: &[(&str, &str)]) -> Result<(Vec<Entry>, Vec<usize>)> {
    let (mut entries, mut counts) = (Vec::new(), Vec::new());
    let mut next = Vec::new();
    loop {
        // What the page before says takes the place of what was asked first.
        let is_replaced = |name: &str| next.iter().any(|(other, _): &(&str, String)| *other == name);
        let asked = query.iter().copied().filter(|(name, _)| !is_replaced(name));
        let asked: Vec<_> = asked.chain(next.iter().map(|(name, value)| (*name, value.as_str()))).collect();
        let page = page(server, &asked)?;
        counts.push(page.entries.len());
        if page.truncated && page.next.is_empty() {
            let Some(Entry::Key(key)) = page.entries.last() else { return Err("nowhere to go on".into()) };
            next = vec![("marker", key.clone())];
        } else {
            next = page.next;
        }
        entries.extend(page.entries);
        if !page.truncated {
            return Ok((entries, counts));
        }
    }
}
