//! The spans of a load, as a subscriber of the program hears of them. It is of the whole process, so this is one test.

mod support;

use bulk_pg::LoadOptions;
use bulk_testkit::spans::Spans;
use support::{Bench, load_t};

#[tokio::test]
async fn what_goes_on_is_in_spans() {
    let spans = Spans::record();
    let bench = Bench::new("spans", "CREATE TABLE t (id integer, name text)");
    let csv: String = (0..1_000).map(|id| format!("{id},name {id}\n")).collect();
    let mut options = LoadOptions::default();
    options.chunk_size = 4_096;
    let loaded = load_t(&mut bench.session().await, format!("id,name\n{csv}").as_bytes(), &options).await.unwrap();
    assert_eq!(loaded.records, 1_000);
    let chunks = bench.psql("SELECT count(*) FROM bulk.chunk").parse::<usize>().unwrap();
    assert!(chunks > 1);

    let run = "load{file=t.csv table=public.t}";
    let (chunk, found) = (format!("{run}/chunk{{file=t.csv}}"), spans.closed());
    assert_eq!(found.first().map(String::as_str), Some(run), "{found:#?}");
    assert!(found.len() > chunks && found[1..].iter().all(|name| *name == chunk), "{found:#?}");
}
