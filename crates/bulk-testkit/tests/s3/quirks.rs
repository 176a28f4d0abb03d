//! What some servers always do otherwise, what goes wrong with a page now and then, and who pays.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use bulk_testkit::s3::{Counts, Fault, KeySpace, Layout, Quirk, Rule, Server, Store};

use super::support::{Entry, Result, all_pages, leaves, page, path, raw};

const V2: (&str, &str) = ("list-type", "2");

fn letters() -> Store {
    ["a/1", "a/2", "b/1", "b/2", "c", "d", "e"].into_iter().map(|key| (key, "x")).collect()
}

fn with(quirk: Quirk) -> Result<Server> {
    Ok(Server::builder().bucket("b", letters().quirk(quirk)).start()?)
}

fn keys(names: &[&str]) -> Vec<Entry> {
    names.iter().map(|&name| Entry::Key(name.to_owned())).collect()
}

const ALL: [&str; 7] = ["a/1", "a/2", "b/1", "b/2", "c", "d", "e"];

#[test]
fn a_server_may_not_know_the_second_version() -> Result {
    for (quirk, status, code) in
        [(Quirk::V2NotImplemented, 501, "NotImplemented"), (Quirk::V2Refused, 400, "InvalidArgument")]
    {
        let server = with(quirk)?;
        let answer = raw(&server, "GET", &path(&[V2]), &[], b"")?;
        assert_eq!((answer.status, leaves(answer.text())?[0].1.as_str()), (status, code));
        assert_eq!(all_pages(&server, &[("max-keys", "3")])?, (keys(&ALL), vec![3, 3, 1]));
        let counts = server.counts();
        assert_eq!((counts.list_v1, counts.list_v2, counts.refused, counts.keys_listed), (3, 1, 1, 7));
    }
    // The answer has the older form, and no way on but the last key.
    let server = with(Quirk::V2Ignored)?;
    let query = [V2, ("max-keys", "3"), ("start-after", "b/1"), ("continuation-token", "no token")];
    let page = page(&server, &query)?;
    assert_eq!((page.entries, page.truncated, page.next), (keys(&ALL[..3]), true, vec![]));
    assert_eq!(all_pages(&server, &query)?, (keys(&ALL), vec![3, 3, 1]));
    Ok(())
}

#[test]
fn start_after_and_encoding_may_be_passed_over() -> Result {
    let server = with(Quirk::StartAfterIgnored)?;
    let query = [V2, ("start-after", "b/2"), ("max-keys", "4")];
    assert_eq!(all_pages(&server, &query)?, (keys(&ALL), vec![4, 3]));
    assert_eq!(page(&server, &[("marker", "b/2")])?.entries, keys(&ALL[4..]));

    let store = Store::memory().with("a b+%/é", "x").quirk(Quirk::EncodingIgnored).quirk(Quirk::V2Refused);
    let server = Server::builder().bucket("b", store).start()?;
    let leaves = leaves(raw(&server, "GET", &path(&[("encoding-type", "url")]), &[], b"")?.text())?;
    assert!(leaves.contains(&("Contents/Key".to_owned(), "a b+%/é".to_owned())), "{leaves:?}");
    assert!(leaves.iter().all(|(name, _)| name != "EncodingType"), "{leaves:?}");
    assert_eq!(raw(&server, "GET", &path(&[V2]), &[], b"")?.status, 400);
    Ok(())
}

#[test]
fn a_listing_may_have_an_order_of_its_own() -> Result {
    for store in [
        letters(),
        Store::made_up(KeySpace::new(Layout::Builds, 7)),
        Store::versioned().with("a", "x").with("b", "y").with("a", "z"),
    ] {
        let server = Server::builder().bucket("b", store).quirk(Quirk::Unordered).start()?;
        for request in [V2, ("x", ""), ("versions", "")] {
            let (all, counts) = all_pages(&server, &[request])?;
            assert_eq!(counts.len(), 1);
            for size in 1..=7 {
                let (paged, _) = all_pages(&server, &[request, ("max-keys", &size.to_string())])?;
                assert_eq!(paged, all, "{request:?} {size}");
            }
        }
    }
    let server = with(Quirk::Unordered)?;
    let mut listed = all_pages(&server, &[V2])?.0;
    assert_ne!(listed, keys(&ALL));
    listed.sort();
    assert_eq!(listed, keys(&ALL));
    let below = |name: &str| Entry::Prefix(name.to_owned());
    for request in [V2, ("x", "")] {
        let (mut rolled_up, counts) = all_pages(&server, &[request, ("delimiter", "/"), ("max-keys", "2")])?;
        rolled_up.sort();
        assert_eq!(rolled_up, [keys(&["c", "d", "e"]), vec![below("a/"), below("b/")]].concat());
        assert_eq!(counts, [2, 2, 1]);
    }
    let mut prefixed = all_pages(&server, &[V2, ("prefix", "b/"), ("start-after", "b/1")])?.0;
    prefixed.sort();
    assert_eq!(prefixed, keys(&["b/1", "b/2"]));
    Ok(())
}

#[test]
fn a_prefix_may_be_forbidden() -> Result {
    let server = with(Quirk::ForbiddenPrefix("b/".to_owned()))?;
    for (prefix, status) in [("", 200), ("b", 200), ("b/", 403), ("b/1", 403), ("a/", 200)] {
        for request in [V2, ("x", ""), ("versions", "")] {
            assert_eq!(
                raw(&server, "GET", &path(&[request, ("prefix", prefix)]), &[], b"")?.status,
                status,
                "{prefix}"
            );
        }
    }
    assert_eq!(page(&server, &[V2])?.entries, keys(&ALL));
    assert_eq!(raw(&server, "GET", "/b/b/1", &[], b"")?.status, 200);
    Ok(())
}

#[test]
fn the_reader_may_have_to_pay() -> Result {
    let server = Server::builder().bucket("b", letters().requester_pays()).bucket("free", letters()).start()?;
    let pays = ("x-amz-request-payer", "requester");
    for target in ["/b?list-type=2", "/b", "/b?versions", "/b/c"] {
        let answer = raw(&server, "GET", target, &[], b"")?;
        assert_eq!((answer.status, leaves(answer.text())?[0].1.as_str()), (403, "AccessDenied"));
        assert_eq!(raw(&server, "GET", target, &[("x-amz-request-payer", "bucket")], b"")?.status, 403);
        let answer = raw(&server, "GET", target, &[pays], b"")?;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("x-amz-request-charged: requester"), "{}", answer.head);
    }
    assert_eq!(raw(&server, "HEAD", "/b/c", &[], b"")?.status, 403);
    let answer = raw(&server, "GET", "/free/c", &[pays], b"")?;
    assert!(answer.status == 200 && !answer.head.contains("charged"), "{}", answer.head);
    Ok(())
}

#[test]
fn a_page_may_be_empty_and_name_its_own_beginning() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    let empty = server.fault(Rule::new(Fault::EmptyPage).list().nth(2));
    assert_eq!(all_pages(&server, &[V2, ("max-keys", "3")])?, (keys(&ALL), vec![3, 0, 3, 1]));
    empty.remove();
    for request in [V2, ("versions", "")] {
        server.clear_faults();
        server.fault(Rule::new(Fault::EmptyPage).list().first(2));
        let start = if request == V2 { "start-after" } else { "key-marker" };
        let (entries, counts) = all_pages(&server, &[request, (start, "a/2")])?;
        assert_eq!((entries.len(), counts), (5, vec![0, 0, 5]));
    }
    server.clear_faults();
    server.fault(Rule::new(Fault::EmptyPage).list().first(1));
    let (entries, counts) = all_pages(&server, &[("marker", "c")])?;
    assert_eq!((entries, counts), (keys(&["d", "e"]), vec![0, 2]));
    assert_eq!(empty.hits(), 1);
    Ok(())
}

#[test]
fn a_page_may_name_itself_as_the_next() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    server.fault(Rule::new(Fault::RepeatedToken).list());
    let first = page(&server, &[V2, ("max-keys", "3"), ("start-after", "a/1")])?;
    assert_eq!((&first.entries, first.truncated), (&keys(&["a/2", "b/1", "b/2"]), true));
    let [("continuation-token", token)] = &first.next[..] else { return Err(format!("{first:?}").into()) };
    for _ in 0..2 {
        let again = page(&server, &[V2, ("max-keys", "3"), ("continuation-token", token)])?;
        assert_eq!((again.entries, again.next), (first.entries.clone(), first.next.clone()));
    }
    server.clear_faults();
    let second = page(&server, &[V2, ("max-keys", "3"), ("continuation-token", token)])?;
    assert_eq!(second.entries, first.entries);
    let later = second.next[0].1.clone();
    server.fault(Rule::new(Fault::RepeatedToken).list());
    let third = page(&server, &[V2, ("max-keys", "3"), ("continuation-token", &later)])?;
    assert_eq!((third.entries, third.next), (keys(&["c", "d", "e"]), vec![("continuation-token", later)]));
    let marked = page(&server, &[("marker", "d")])?;
    assert_eq!((marked.entries, marked.next), (keys(&["e"]), vec![("marker", "d".to_owned())]));
    Ok(())
}

#[test]
fn a_page_may_say_that_there_is_more_and_not_where() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    let rule = server.fault(Rule::new(Fault::TruncatedWithoutToken).list());
    for request in [V2, ("x", ""), ("versions", "")] {
        let page = page(&server, &[request, ("delimiter", "/")])?;
        assert_eq!((page.entries.len(), page.truncated, page.next), (5, true, vec![]));
    }
    assert_eq!(raw(&server, "GET", "/b/c", &[], b"")?.text(), "x");
    assert_eq!(rule.hits(), 3);
    Ok(())
}

#[test]
fn the_keys_of_a_page_may_be_out_of_order() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    server.fault(Rule::new(Fault::OutOfOrder).list().nth(2));
    let (entries, counts) = all_pages(&server, &[V2, ("max-keys", "3")])?;
    assert_eq!((entries, counts), (keys(&["a/1", "a/2", "b/1", "d", "c", "b/2", "e"]), vec![3, 3, 1]));
    Ok(())
}

#[test]
fn an_answer_may_end_in_its_middle_and_say_nothing() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    let whole = raw(&server, "GET", "/b?list-type=2", &[], b"")?;
    server.fault(Rule::new(Fault::ShortBody(700)).list());
    let cut = raw(&server, "GET", "/b?list-type=2", &[], b"")?;
    assert_eq!((cut.status, &cut.body[..], cut.end.is_ok()), (200, &whole.body[..700], true));
    assert!(cut.head.contains("content-length: 700"), "{}", cut.head);
    server.fault(Rule::new(Fault::ShortBody(0)).key("c"));
    assert_eq!(raw(&server, "GET", "/b/c", &[], b"")?.body, b"");
    Ok(())
}

#[test]
fn a_slow_page_holds_up_no_other() -> Result {
    let server = Server::builder().bucket("b", letters()).start()?;
    // Until the server ends.
    let slow = server.fault(Rule::new(Fault::Latency(Duration::from_secs(3600))).list().first(50));
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.url().trim_start_matches("http://"))?;
        stream.write_all(b"GET /b?list-type=2 HTTP/1.1\r\nhost: h\r\n\r\n")?;
        waiting.push(stream);
    }
    while slow.hits() < 50 {
        std::thread::yield_now();
    }
    assert_eq!(page(&server, &[V2])?.entries, keys(&ALL));
    assert_eq!(server.requests().iter().filter(|request| request.status.is_none()).count(), 50);
    Ok(())
}

#[test]
fn counts_are_exact_and_the_log_is_bounded() -> Result {
    let server = Server::builder().bucket("b", letters()).writable(true).keep_requests(2).start()?;
    all_pages(&server, &[V2, ("max-keys", "3")])?;
    all_pages(&server, &[("max-keys", "4")])?;
    page(&server, &[("versions", ""), ("delimiter", "/")])?;
    let mut sent = server.counts().bytes_sent;
    assert!(sent > 7 * 200, "{sent}");
    raw(&server, "GET", "/b/c", &[], b"")?;
    raw(&server, "HEAD", "/b/c", &[], b"")?;
    raw(&server, "PUT", "/b/f", &[], b"x")?;
    raw(&server, "DELETE", "/b/f", &[], b"")?;
    sent += 1;
    assert_eq!(server.counts().bytes_sent, sent);
    sent += raw(&server, "GET", "/b/nothing", &[], b"")?.body.len() as u64;
    raw(&server, "HEAD", "/b", &[], b"")?;
    let Counts { list_v1, list_v2, list_versions, get, head, put, delete, other, .. } = server.counts();
    assert_eq!([list_v1, list_v2, list_versions, get, head, put, delete, other], [2, 3, 1, 2, 1, 1, 1, 1]);
    let counts = server.counts();
    assert_eq!((counts.refused, counts.keys_listed, counts.bytes_sent), (1, 7 + 7 + 3, sent));
    assert_eq!((counts.lists(), counts.requests(), counts.connections), (6, 12, 12));
    let kept = server.requests();
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[0].key.as_deref(), kept[1].method.as_str()), (Some("nothing"), "HEAD"));
    server.clear_requests();
    assert_eq!((server.counts(), server.requests().len()), (Counts::default(), 0));
    Ok(())
}

#[tokio::test]
async fn a_connection_counts_once_until_all_is_forgotten() -> Result {
    let server = Server::builder().bucket("b", letters()).keep_requests(0).start()?;
    let client = super::support::client();
    for _ in 0..2 {
        for _ in 0..3 {
            client.get(format!("{}/b/c", server.url())).send().await?.bytes().await?;
        }
        assert_eq!((server.counts().get, server.counts().connections), (3, 1));
        server.clear_requests();
    }
    assert_eq!(server.requests().len(), 0);
    Ok(())
}
