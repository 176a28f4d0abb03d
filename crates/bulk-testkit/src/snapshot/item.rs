use serde_json::json;

use super::prose::{PROSE, slug};
use super::rng::{Rng, mix};

/// A decision as the JSON document that a courts-data project publishes of it: a few fields and the text, 0.5 to 20 KB, about
/// 5 KB on average. The same numbers give the same document; another `edition` is a correction, of a few words.
pub fn opinion_json(number: u64, edition: u64) -> String {
    let rng = &mut Rng::new(mix(number, 0, 0x0009_1a10_4a50));
    let (plaintiff, defendant) = (PROSE.party(rng), PROSE.party(rng));
    let (judge, len) = (PROSE.person(rng), rng.size(4000).clamp(300, 19_000) as usize);
    let case_name = format!("{plaintiff} v. {defendant}");
    let (year, month, day) = (rng.range(1950..2026), rng.range(1..13), rng.range(1..29));
    let mut text = String::new();
    PROSE.passage(rng, len, &mut text);
    if edition > 0 {
        PROSE.sentence(&mut Rng::new(mix(number, edition, 1)), &mut text);
    }
    let document = json!({
        "resource_uri": format!("/api/rest/v4/opinions/{number}/"),
        "absolute_url": format!("/opinion/{number}/{}/", slug(&case_name)),
        "id": number,
        "case_name": case_name,
        "author_str": judge,
        "date_filed": format!("{year}-{month:02}-{day:02}"),
        "docket_number": format!("{:02}-{}", year % 100, rng.below(9000) + 100),
        "type": "010combined",
        "per_curiam": rng.chance(80),
        "citation_count": rng.zipf(1000),
        "plain_text": text,
    });
    document.to_string()
}
