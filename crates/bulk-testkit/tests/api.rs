//! The JSON API on loopback.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bulk_testkit::api::{Answer, ArchivesSpace, Fault, Latency, Server, bungie, worst_window};
use serde_json::{Value, json};

async fn get(client: &reqwest::Client, url: String) -> (u16, Option<String>, Value) {
    let answer = client.get(url).header("x-api-key", "4711").send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), retry_after, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

#[tokio::test]
async fn what_exceeds_a_window_is_refused_and_counts() {
    let server = Server::builder(|asked| Answer::json(json!(asked.number))).limit(3, Duration::from_secs(3600));
    let server = server.limit(100, Duration::from_secs(7200)).start().unwrap();
    let client = reqwest::Client::new();
    for number in 0..3 {
        assert_eq!(get(&client, server.url()).await, (200, None, json!(number)));
    }
    for _ in 0..2 {
        assert_eq!(
            get(&client, server.url()).await,
            (429, Some("1".to_owned()), json!({"error": "too many requests"}))
        );
    }
    assert_eq!((server.refused(), server.worst(Duration::from_secs(3600))), (2, 5));
    server.clear();
    assert_eq!(get(&client, format!("{}/x?a=1", server.url())).await.0, 200);
    assert_eq!(server.arrivals()[0].target, "/x?a=1");
}

#[test]
fn the_worst_window_is_the_one_with_the_most() {
    let begun = Instant::now();
    let at = |millis: &[u64]| millis.iter().map(|millis| begun + Duration::from_millis(*millis)).collect::<Vec<_>>();
    let worst = |millis: &[u64]| worst_window(&at(millis), Duration::from_millis(10));
    assert_eq!((worst(&[]), worst(&[5]), worst(&[0, 10, 20])), (0, 1, 1));
    assert_eq!((worst(&[0, 5, 9, 10, 30, 31]), worst(&[0, 0, 0, 9, 9, 10])), (3, 5));
}

#[tokio::test]
async fn faults_come_in_their_part_and_repeat_by_seed() {
    let met = async |seed: u64| {
        let server = Server::builder(|_| Answer::json(json!("fine")))
            .fault(Fault::TooManyRequests(7), 0.1)
            .fault(Fault::Throttled(3), 0.1)
            .fault(Fault::Status(503), 0.1)
            .fault(Fault::Closed, 0.1)
            .latency(Latency::heavy_tail(Duration::from_micros(1), Duration::from_millis(1)))
            .seed(seed)
            .start()
            .unwrap();
        let client = reqwest::Client::new();
        let mut met = Vec::new();
        for _ in 0..300 {
            met.push(match client.get(server.url()).send().await {
                Err(_) => "closed".to_owned(),
                Ok(answer) => format!("{} {}", answer.status().as_u16(), answer.text().await.unwrap()),
            });
        }
        assert_eq!(server.arrivals().len(), 300);
        met
    };
    let first = met(1).await;
    let mut counts = BTreeMap::<_, usize>::new();
    for answer in &first {
        *counts.entry(answer.split(',').next().unwrap()).or_default() += 1;
    }
    let kinds: Vec<_> = counts.keys().copied().collect();
    assert_eq!(
        kinds,
        [
            "200 \"fine\"",
            "200 {\"ErrorCode\":36",
            "429 {\"error\":\"too many requests\"}",
            "503 {\"error\":\"as asked for\"}",
            "closed"
        ]
    );
    assert!(counts.values().all(|count| (10..=230).contains(count)), "{counts:?}");
    assert_eq!(met(1).await, first);
}

#[tokio::test]
async fn bungie_answers_as_it_does() {
    let server = Server::builder(bungie("4711", |character| 20 + character as usize)).start().unwrap();
    let client = reqwest::Client::new();
    let path = "Platform/Destiny2/2/Account/1/Character/5/Stats/AggregateActivityStats/";
    let (status, _, body) = get(&client, format!("{}/{path}", server.url())).await;
    let activities = body["Response"]["activities"].as_array().unwrap();
    let statistics: usize = activities.iter().map(|activity| activity["values"].as_object().unwrap().len()).sum();
    assert_eq!((status, &body["ErrorCode"], activities.len(), statistics), (200, &json!(1), 3, 25));
    let (name, value) = activities[0]["values"].as_object().unwrap().iter().next().unwrap();
    assert_eq!((&value["statId"], value["basic"]["value"].is_f64()), (&json!(name), true));
    assert_eq!(get(&client, format!("{}/{path}", server.url())).await.2, body);

    let unknown = client.get(format!("{}/{path}", server.url())).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&unknown).unwrap()["ErrorCode"], 2101);
}

#[tokio::test]
async fn archives_space_answers_as_it_does() {
    let space = ArchivesSpace::new("s");
    (1..=30).for_each(|id| space.put(id, &format!("t{id}"), 100 * id));
    space.delete(3, 5000);
    let answers = space.clone();
    let server = Server::builder(move |asked| answers.answer(asked)).start().unwrap();
    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let request = client.get(format!("{}{path}", server.url())).header("x-archivesspace-session", "s");
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap())
    };
    let objects = "/repositories/2/archival_objects";
    assert_eq!(get(&format!("{objects}?all_ids=true&modified_since=2800")).await, (200, json!([28, 29, 30])));
    let (status, found) = get(&format!("{objects}?id_set=5,3,1&resolve[]=subjects")).await;
    let uris: Vec<_> = found.as_array().unwrap().iter().map(|object| object["uri"].as_str().unwrap()).collect();
    assert_eq!((status, uris), (200, vec!["/repositories/2/archival_objects/1", "/repositories/2/archival_objects/5"]));
    assert_eq!(found[0]["subjects"][0]["_resolved"]["title"], "Subject 1");
    let (_, page) = get(&format!("{objects}?page=2&page_size=25")).await;
    assert_eq!(
        (&page["total"], &page["last_page"], page["results"].as_array().unwrap().len()),
        (&json!(29), &json!(2), 4)
    );
    assert!(page["results"][0]["subjects"][0]["_resolved"].is_null());
    assert_eq!(get("/delete-feed?modified_since=1").await.1["results"], json!(["/repositories/2/archival_objects/3"]));
    assert_eq!(
        (get(&format!("{objects}/3")).await.0, get(&format!("{objects}/4")).await.1["title"].clone()),
        (404, json!("t4"))
    );
    assert_eq!(get(objects).await.0, 400);
    let stranger = client.get(format!("{}{objects}/4", server.url())).send().await.unwrap();
    assert_eq!(stranger.status().as_u16(), 412);
}
