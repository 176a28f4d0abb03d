//! The rows of the tables about courts, dockets, opinions and citations.

use super::pen::{Pen, cite, federal_number};
use super::prose::{PROSE, REPORTERS, Text, slug};
use super::rng::{Rng, mix};
use super::world::{COURTS, TableId};

pub(super) fn court(pen: &mut Pen<'_>, index: u64) {
    let court = &COURTS[index as usize];
    let federal = court.jurisdiction == "FD";
    pen.text(&court.id).maybe_int(federal.then_some(index)).maybe(federal.then_some("t"));
    pen.of_or_empty(if federal { 500 } else { 0 }, &["all", "opinion, order, judgment"]);
    pen.maybe_time(if federal { 800 } else { 0 }, 2020, 2024).text(if federal { &court.id[..2] } else { "" });
    let modified = pen.some_day(2014, 2024);
    pen.time(modified)
        .bool(900)
        .bool(400)
        .bool(100)
        .decimal(100_000 + index * 125, 3)
        .text(&court.short)
        .text(&court.short);
    pen.text(&court.name)
        .text(&format!("https://www.{}.example.org/", court.id))
        .maybe_day(300, 1780, 1990)
        .maybe_day(20, 1991, 2020);
    pen.text(court.jurisdiction).of_or_empty(30, &["Abolished; kept for its \"history\".\r\nSee its successor."]);
    pen.maybe(court.parent.as_deref());
}

pub(super) fn courthouse(pen: &mut Pen<'_>, index: u64) {
    let (judge, street) = (PROSE.person(&mut pen.rng), PROSE.surname(&mut pen.rng));
    let number = pen.rng.range(1..999);
    pen.id(TableId::Courthouse, index).maybe_bool().text(&format!("{judge} United States Courthouse"));
    pen.text(&format!("{number} {street} Street")).of(&["", "Suite 200", "Room 1-A"]).city();
    let county = PROSE.surname(&mut pen.rng);
    pen.text(&format!("{county} County")).state();
    let zip = pen.rng.below(100_000);
    pen.text(&format!("{zip:05}")).text("US").court();
}

pub(super) fn appeals_to(pen: &mut Pen<'_>, index: u64) {
    let courts = COURTS.len();
    let (from, to) = (index as usize % courts, (index as usize * 5 + 3) % courts);
    pen.id(TableId::AppealsTo, index).text(&COURTS[from].id).text(&COURTS[to].id);
}

pub(super) fn fjc(pen: &mut Pen<'_>, index: u64) {
    let year = pen.rng.range(1971..2023);
    pen.id(TableId::Fjc, index).stamps().of(&["1", "2", "8", "9"]).number(0..5);
    let number = format!("{:02}{:05}", year % 100, pen.rng.below(100_000));
    pen.text(&number)
        .number(1..14)
        .day(year as i64, year as i64 + 1)
        .number(1..6)
        .of(&["440", "190", "365", "550", "110"]);
    pen.of(&["", "28", "42", "29", "35"])
        .of(&["", "1331", "1983", "1332"])
        .of(&["", "", "A", "PR"])
        .maybe_number(200, 11..66);
    pen.maybe_bool().maybe_number(400, 0..9999).number(0..99_999).of(&["", "", "E", "M"]).of(&["", "", "E"]);
    pen.or_empty(50, |rng| rng.range(1..3000).to_string());
    for _ in 0..2 {
        let party = PROSE.party(&mut pen.rng).to_uppercase();
        pen.text(&party);
    }
    pen.maybe_day(30, 1980, 2023).empty().empty().empty().maybe_day(900, 1972, 2024).maybe_of(400, &["2", "3"]);
    pen.maybe_number(900, 1..13).maybe_number(900, 0..20).maybe_number(900, 0..7).maybe_number(300, 0..9999);
    pen.maybe_number(600, 1..5).maybe_number(900, 0..4).number(1972..2024).empty().null().court().court();
}

pub(super) fn originating(pen: &mut Pen<'_>, index: u64) {
    let number = federal_number(pen.rng.below(30) + 95, pen.rng.of(&["cv", "cr", "bk"]), index);
    pen.id(TableId::Originating, index).stamps().text(&number);
    pen.or_empty(700, |rng| PROSE.person(rng))
        .or_empty(300, |rng| PROSE.person(rng))
        .or_empty(200, |rng| PROSE.person(rng));
    pen.maybe_day(300, 1995, 2024).maybe_day(800, 1995, 2024).maybe_day(600, 1995, 2024).maybe_day(500, 1995, 2024);
    pen.maybe_day(700, 1995, 2024)
        .maybe_day(600, 1995, 2024)
        .maybe_pick(400, TableId::Person)
        .maybe_pick(200, TableId::Person)
        .text(&number);
}

const CAUSES: &[&str] = &[
    "28:1331 Fed. Question",
    "28:1332 Diversity-Breach of Contract",
    "42:1983 Civil Rights Act",
    "28:2254 Petition for Writ of Habeas Corpus (State)",
    "29:1132 E.R.I.S.A.-Employee Benefits",
    "35:271 Patent Infringement",
];

const NATURES: &[&str] = &[
    "440 Civil Rights: Other",
    "110 Insurance",
    "190 Contract: Other",
    "360 P.I.: Other",
    "550 Prisoner: Civil Rights",
    "830 Patent",
    "863 Social Security: DIWC/DIWW",
];

pub(super) fn docket(pen: &mut Pen<'_>, index: u64) {
    let [short, name, full] = pen.case();
    let recap = pen.rng.chance(600);
    let year = pen.rng.range(96..126);
    let court = &pen.world.busy_court(&mut pen.rng).id;
    let kind = pen.rng.of(&["cv", "cr", "bk", "mj"]);
    // One docket per number, pacer_case_id and court, so that every number holds the index.
    let number = match pen.rng.below(40) {
        _ if recap => Some(federal_number(year, kind, index)),
        0 => None,
        1..=3 => Some(format!("{index}, {} & {}; A-{}", index + 1, index + 2, pen.rng.below(9999))),
        _ => Some(format!("No. {}-{index}", pen.rng.range(1..99))),
    };
    let judge = if recap { PROSE.person(&mut pen.rng) } else { String::new() };
    let pacer = format!("{}", 10_000 + index * 7);
    let path = if recap && pen.rng.chance(500) {
        format!("recap/gov.uscourts.{court}.{pacer}/gov.uscourts.{court}.{pacer}.docket.xml")
    } else {
        String::new()
    };
    let filed_from = if recap { 1990 } else { 1880 };
    pen.id(TableId::Docket, index).stamps().of(if recap { &["1", "9", "33"] } else { &["2", "6", "16", "128", "0"] });
    pen.of_or_empty(200, &["D. Mass.", "Superior Court of Fulton County", "Family Court"]).text(&judge);
    pen.or_empty(if recap { 300 } else { 0 }, |rng| PROSE.person(rng)).of_or_empty(50, &["JMW/RAK/SES", "DHG/JMW/RAK"]);
    pen.maybe_time(500, 2015, 2024).maybe_day(10, 1920, 2024).maybe_day(20, 1920, 2024).maybe_day(30, 1920, 2024);
    pen.maybe_day(1, 1920, 2024).maybe_day(1, 1920, 2024).maybe_day(900, filed_from, 2024).maybe_day(500, 1990, 2024);
    pen.maybe_day(500, 2000, 2024).text(&short).text(&name).text(&full);
    pen.text(&slug(&name)).maybe(number.as_deref());
    if recap {
        pen.text(&format!("{:02}{:05}", year % 100, index % 100_000)).text(&pacer).of(CAUSES).of(NATURES);
        pen.of(&["None", "Plaintiff", "Defendant", "Both"]).of(&[
            "Federal Question",
            "Diversity",
            "U.S. Government Defendant",
        ]);
    } else {
        pen.empty().null().empty().empty().empty().empty();
    }
    pen.of_or_empty(30, &["Paid"]).of_or_empty(30, &["civil, private, bankruptcy"]).empty().text(&path);
    pen.text(&if path.is_empty() {
        String::new()
    } else {
        format!("https://archive.example.org/download/{}", &path[6..])
    });
    pen.empty().maybe_of(300, &["0", "1"]).maybe_bool().maybe_time(200, 2017, 2024);
    let views = pen.rng.below(40) * u64::from(pen.rng.chance(400));
    pen.int(views)
        .maybe_day(20, 2010, 2024)
        .bool(20)
        .maybe_court(80)
        .maybe_pick(if recap { 700 } else { 0 }, TableId::Person)
        .text(court);
    for parent in [TableId::Fjc, TableId::Originating] {
        match pen.world.one_to_one(TableId::Docket, index, parent) {
            Some(at) => pen.id(parent, at),
            None => pen.null(),
        };
    }
    pen.maybe_pick(100, TableId::Person);
    let initials: String = judge.split(' ').filter_map(|word| word.chars().next()).take(5).collect();
    pen.text(if recap { kind } else { "" }).text(if recap { "1" } else { "" }).text(&initials).empty();
    pen.maybe_number(if recap { 20 } else { 0 }, 1..10).maybe_earlier(10, TableId::Docket, index);
    pen.text(number.as_deref().unwrap_or_default()).of(&["0", "0", "0", "0", "1"]);
}

pub(super) fn cluster(pen: &mut Pen<'_>, index: u64) {
    let [short, name, full] = pen.case();
    let docket = pen.world.spread(TableId::Cluster, index, TableId::Docket, &mut pen.rng);
    let harvard = pen.rng.chance(650);
    let scotus = pen.rng.chance(20);
    let attorneys = attorneys(&mut pen.rng);
    let cite = cite(&mut pen.rng);
    pen.id(TableId::Cluster, index).stamps();
    pen.or_empty(600, |rng| (0..rng.range(1..5)).map(|_| PROSE.surname(rng)).collect::<Vec<_>>().join(", "));
    pen.day(1880, 2024)
        .bool(50)
        .maybe(Some(slug(&name).as_str()).filter(|_| !index.is_multiple_of(97)))
        .text(&short)
        .text(&name)
        .text(&full);
    if scotus {
        let id = format!("{}-{:03}", pen.rng.range(1946..2021), pen.rng.below(150));
        pen.text(&id).number(1..4).number(5..10).number(0..5);
    } else {
        pen.empty().null().null().null();
    }
    pen.of(&["C", "U", "CU", "LU", "Z", "ZCU"]).prose(50, 300).text(if index.is_multiple_of(2) {
        &attorneys
    } else {
        ""
    });
    pen.of(&["", "", "", "Civil", "Criminal appeal"]).prose(50, 200).prose(150, 600).prose(50, 900).prose(200, 500);
    pen.of(&["", "", "Affirmed.", "Reversed and remanded."]).prose(20, 150).of(&["", "", "", "Argued\tMay 5, 1954"]);
    pen.empty().prose(10, 100);
    let cited = pen.rng.zipf(400) as u64;
    pen.int(cited).of(&["Published", "Published", "Published", "Unpublished", "Unknown", "Errata"]);
    pen.maybe_day(10, 2010, 2024).bool(10);
    if harvard {
        pen.text(&format!("law.free.cap.{}/{}.json", slug(&cite), 4_000_000 + index));
        pen.text(&if index.is_multiple_of(3) {
            format!("harvard_pdf/{}.pdf", 4_000_000 + index)
        } else {
            String::new()
        });
    } else {
        pen.empty().empty();
    }
    pen.id(TableId::Docket, docket).empty();
    if harvard {
        let mut head = format!("<parties id=\"b{}-4\">\n{}\n</parties>\n", index % 1000, name.to_uppercase());
        head.push_str(&format!("<attorneys id=\"b{}-6\">{attorneys}</attorneys>\n", index % 1000));
        let bytes = pen.rng.size(500) as usize;
        PROSE.passage(&mut pen.rng, bytes, &mut head);
        pen.text(&head);
    } else {
        pen.empty();
    }
}

fn attorneys(rng: &mut Rng) -> String {
    let mut out = String::new();
    for at in 0..rng.range(1..5) {
        if at > 0 {
            out.push_str("; ");
        }
        out.push_str(&PROSE.person(rng));
        out.push_str(", ");
        out.push_str(PROSE.city(rng));
        out.push_str(rng.of(&[", for appellant", ", for appellee", ", for petitioner"]));
    }
    out
}

/// Three judges to a cluster, each from another third of all people.
pub(super) fn panel(pen: &mut Pen<'_>, index: u64) {
    let third = pen.world.rows(TableId::Person) / 3;
    let judge = mix(pen.world.seed, index, 2) % third + index % 3 * third;
    let cluster = index / 3 % pen.world.rows(TableId::Cluster);
    pen.id(TableId::Panel, index).id(TableId::Cluster, cluster).id(TableId::Person, judge);
}

pub(super) fn non_participating(pen: &mut Pen<'_>, index: u64) {
    let cluster = index % pen.world.rows(TableId::Cluster);
    pen.id(TableId::NonParticipating, index).id(TableId::Cluster, cluster).pick(TableId::Person);
}

/// The columns that may hold the text of an opinion in HTML, in published order after plain_text.
const HTML: [u64; 10] = [5, 5, 5, 5, 5, 1, 2, 3, 4, 6];

pub(super) fn opinion(pen: &mut Pen<'_>, index: u64) {
    let cluster = pen.world.spread(TableId::Opinion, index, TableId::Cluster, &mut pen.rng);
    let html = pen.rng.chance(550);
    let bytes = pen.rng.size(8_500);
    let author = if pen.rng.chance(600) { PROSE.surname(&mut pen.rng) } else { "" };
    let mut text: Text = std::mem::take(&mut pen.scratch);
    let world = pen.world;
    let mut link = |rng: &mut Rng| rng.chance(900).then(|| world.pick(TableId::Opinion, rng));
    PROSE.opinion(&mut pen.rng, bytes as usize, html, &mut link, &mut text);

    pen.id(TableId::Opinion, index).stamps().text(author).bool(50);
    pen.or_empty(100, |rng| PROSE.surname(rng).to_owned());
    pen.of(&["010combined", "010combined", "010combined", "020lead", "030concurrence", "040dissent"]);
    let column = if html { HTML[pen.rng.below(10) as usize] } else { 0 };
    if html {
        pen.empty().null().null().empty();
    } else {
        let (case, number) = (PROSE.party(&mut pen.rng), pen.rng.below(1_000_000));
        pen.sha1().int(1 + bytes / 2200);
        pen.text(&format!("https://www.ca{}.example.org/opinions/{number}.pdf?id={number}&x=\"1\"", number % 11 + 1));
        let day = pen.some_day(2010, 2024);
        pen.row.put("pdf/").put_day(day).put("/").put(&slug(&case)).put(".pdf").end();
    }
    for at in 0..7 {
        match at {
            _ if at != column => {}
            // Harvard's XML and the first provider's HTML with the line ends of another system.
            5 => {
                pen.row.put("<opinion type=\"majority\">\n<author id=\"b9-9\">").put(author).put("</author>\n");
                pen.row.put(&text.plain).put("</opinion>");
            }
            2 => {
                for line in text.plain.split_inclusive('\n') {
                    pen.row.put(line.trim_end_matches('\n')).put("\r\n");
                }
            }
            _ => {
                pen.row.put(&text.plain);
            }
        }
        pen.row.end();
    }
    if pen.rng.chance(880) {
        let (open, close) = if html { ("<div>", "</div>") } else { ("<pre class=\"inline\">", "</pre>") };
        pen.row.put(open).put(&text.linked).put(close);
    }
    pen.row.end();
    pen.bool(20).maybe_pick(if author.is_empty() { 0 } else { 500 }, TableId::Person).id(TableId::Cluster, cluster);
    pen.scratch = text;
}

pub(super) fn joined_by(pen: &mut Pen<'_>, index: u64) {
    let opinion = pen.world.spread(TableId::JoinedBy, index, TableId::Opinion, &mut pen.rng);
    pen.id(TableId::JoinedBy, index).id(TableId::Opinion, opinion).pick(TableId::Person);
}

/// The citing opinion has its targets in equal slices of all others, one in each, so none comes twice.
pub(super) fn cited(pen: &mut Pen<'_>, index: u64) {
    let depth = 1 + pen.rng.zipf(12) as u64;
    let (citing, cited) = citing_and_cited(pen, index);
    pen.id(TableId::Cited, index).int(depth).id(TableId::Opinion, cited).id(TableId::Opinion, citing);
}

fn citing_and_cited(pen: &mut Pen<'_>, index: u64) -> (u64, u64) {
    let opinions = pen.world.rows(TableId::Opinion);
    let each = pen.world.rows(TableId::Cited).div_ceil(opinions);
    let citing = index / each % opinions;
    let slice = (opinions - 1) / each;
    let cited = (citing + 1 + index % each * slice + pen.rng.below(slice)) % opinions;
    (citing, cited)
}

/// A row of the citation map whose cited or citing opinion is missing, in turn.
pub(super) fn orphan_cited(pen: &mut Pen<'_>, index: u64, missing: u64) -> &'static str {
    let depth = 1 + pen.rng.zipf(12) as u64;
    pen.id(TableId::Cited, index).int(depth);
    if missing.is_multiple_of(2) {
        pen.int(missing).pick(TableId::Opinion);
        "cited_opinion_id"
    } else {
        pen.pick(TableId::Opinion).int(missing);
        "citing_opinion_id"
    }
}

pub(super) fn citation(pen: &mut Pen<'_>, index: u64) {
    citation_of(pen, index, None);
}

/// A citation of a cluster: that of its index, or a missing one.
pub(super) fn citation_of(pen: &mut Pen<'_>, index: u64, missing: Option<u64>) {
    let clusters = pen.world.rows(TableId::Cluster);
    let (cluster, ordinal) = (index % clusters, index / clusters);
    let (reporter, kind) = reporter(cluster, ordinal);
    pen.id(TableId::Citation, index);
    match pen.rng.below(200) {
        0 => pen.null(),
        1 => pen.of(&["12 (Supp.)", "2000-1", "III"]),
        _ if reporter == "WL" || reporter.ends_with("LEXIS") => pen.number(1980..2024),
        _ => pen.number(1..999),
    };
    pen.text(reporter);
    if pen.rng.chance(970) {
        pen.number(1..5_000);
    } else {
        pen.text(&format!("{index}-M"));
    }
    pen.int(kind);
    match missing {
        Some(id) => pen.int(id),
        None => pen.id(TableId::Cluster, cluster),
    };
    pen.stamps();
}

/// The reporters of one parent are neighbours on a ring, so none comes twice.
fn reporter(parent: u64, ordinal: u64) -> (&'static str, u64) {
    REPORTERS[((mix(parent, 3, 0) % 1_000 + ordinal) % REPORTERS.len() as u64) as usize]
}

/// Its group is NULL, or one of search_parentheticalgroup, a table that is never exported.
pub(super) fn parenthetical(pen: &mut Pen<'_>, index: u64) {
    let mut text =
        pen.rng.of(&["holding that ", "noting ", "stating that ", "rejecting argument that ", "“", "\""]).to_owned();
    PROSE.sentence(&mut pen.rng, &mut text);
    pen.id(TableId::Parenthetical, index).text(text.trim_end_matches('.'));
    let score = pen.rng.range(1..10_000);
    pen.decimal(score, 4).pick(TableId::Opinion).pick(TableId::Opinion);
    if pen.rng.chance(850) {
        pen.int(10_000 + index / 2);
    } else {
        pen.null();
    }
}

pub(super) fn audio(pen: &mut Pen<'_>, index: u64) {
    let [_, name, full] = pen.case();
    let seconds = pen.rng.range(300..5_300);
    let done = pen.rng.chance(800);
    let path = format!("mp3/20{:02}/{:02}/{}", pen.rng.range(13..24), pen.rng.range(1..13), slug(&name));
    pen.id(TableId::Audio, index).stamps().of(&["C", "R"]).empty().text(&name).text(&full);
    match pen.rng.below(3) {
        0 => pen.null(),
        1 => pen.empty(),
        _ => {
            let judge = PROSE.person(&mut pen.rng);
            pen.text(&judge)
        }
    };
    pen.sha1();
    if pen.rng.chance(950) {
        let number = pen.rng.below(1_000_000);
        pen.text(&format!("https://media.ca{}.example.org/sound/{number}.mp3", number % 9 + 1));
    } else {
        pen.null();
    }
    pen.text(&format!("{path}_cl.mp3")).text(&format!("{path}.mp3"));
    pen.or_empty(500, |_| format!("https://archive.example.org/download/{path}"))
        .maybe_of(500, &["0"])
        .int(seconds)
        .bool(990);
    pen.maybe_day(10, 2015, 2024).bool(10).text(if done { "1" } else { "0" });
    if done {
        pen.prose(1000, seconds * 14).of(&["1", "2"]);
    } else {
        pen.empty().null();
    }
    pen.maybe_pick(990, TableId::Docket);
}

pub(super) fn unmatched(pen: &mut Pen<'_>, index: u64) {
    let opinions = pen.world.rows(TableId::Opinion);
    let (opinion, ordinal) = (index % opinions, index / opinions);
    let (reporter, kind) = reporter(opinion, ordinal);
    let (volume, page) = (pen.rng.range(1..999), pen.rng.range(1..3_000));
    pen.id(TableId::Unmatched, index).int(volume).text(reporter).int(page).int(kind).number(1..6);
    pen.text(&format!("{volume} {reporter} {page}"))
        .of(&["", "scotus", "ca9", "cal", "nysd"])
        .maybe_number(800, 1900..2024);
    pen.id(TableId::Opinion, opinion);
}
