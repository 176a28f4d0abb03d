//! `--metrics`, asked as Prometheus asks.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;
use support::{Ran, bulk, server};

/// Status line, and all behind it.
fn get(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (status, rest) = answer.split_once("\r\n").unwrap();
    (status.to_owned(), rest.to_owned())
}

/// The value of a series; 0 if there is none yet.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[test]
fn a_run_is_watched_while_it_goes_on() {
    let database = server().create_database("metrics").unwrap();
    support::sql(&database, "CREATE TABLE people (id bigint, name text)");
    let mut command = bulk(["load", "-", "--table", "people", "--json", "--metrics", "127.0.0.1:0"]);
    command.env("BULK_DB", database.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["event"], "metrics", "{line}");
    let url = event["url"].as_str().unwrap();
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix("/metrics")).unwrap();
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{url}");

    let mut csv = b"id,name\n".to_vec();
    for id in 0..50_000 {
        writeln!(csv, "{id},name {id}").unwrap();
    }
    stdin.write_all(&csv).unwrap();
    // All of it is there, and more may come: nothing of the run has ended. What it has not done yet is looked for again when
    // it says how far it is, a few times a minute.
    let mut looks = 12;
    let page = loop {
        let (status, page) = get(address, "GET /metrics");
        assert_eq!(status, "HTTP/1.1 200 OK");
        let has_read = value(&page, "bulk_stage_bytes_total{stage=\"stdin\"}") == csv.len() as f64;
        if has_read && value(&page, "bulk_stage_workers{stage=\"encode\"}") == 1.0 {
            break page;
        }
        looks -= 1;
        line.clear();
        assert!(looks > 0 && said.read_line(&mut line).unwrap() > 0, "{page}");
    };
    assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{page}");
    let run = format!("bulk_run_info{{command=\"load\",version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&page, &run), 1.0, "{page}");

    // What has been counted is never taken back, and each state of each stage is there.
    let before = value(&page, "bulk_stage_seconds_total{stage=\"stdin\",state=\"server\"}");
    let (_, page) = get(address, "GET /");
    assert!(value(&page, "bulk_stage_seconds_total{stage=\"stdin\",state=\"server\"}") >= before);
    assert_eq!(page.matches("bulk_stage_seconds_total{stage=\"encode\",state=").count(), 10, "{page}");
    for (request, expected) in
        [("GET /else", "HTTP/1.1 404 Not Found"), ("POST /metrics", "HTTP/1.1 405 Method Not Allowed")]
    {
        assert_eq!(get(address, request).0, expected);
    }
    drop(stdin);
    said.read_to_string(&mut line).unwrap();
    assert!(child.wait().unwrap().success(), "{line}");
    assert_eq!(support::sql(&database, "SELECT count(*) FROM people"), "50000");
}

#[test]
fn an_address_that_is_taken_is_told_before_the_work() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = Ran::of(bulk(["load", "absent.csv", "--table", "t", "--metrics", &address]));
    ran.assert(2, &[&format!("--metrics: cannot listen on {address}: ")]);
    let ran = Ran::of(bulk(["load", "absent.csv", "--table", "t", "--metrics", "everywhere"]));
    ran.assert(2, &["it is no ADDRESS:PORT, nor a PORT"]);
}
