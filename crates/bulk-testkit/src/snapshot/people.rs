//! The rows of the tables about people: judges, their posts, schools, parties and races.

use super::pen::Pen;
use super::prose::{PROSE, slug};
use super::rng::mix;
use super::world::{RACES, TableId};

const YEAR: &str = "%Y";
const DAY: &str = "%Y-%m-%d";

pub(super) fn person(pen: &mut Pen<'_>, index: u64) {
    let (first, last) = (PROSE.first_name(&mut pen.rng), PROSE.surname(&mut pen.rng));
    let born = pen.rng.chance(600).then(|| pen.some_day(1800, 1985));
    let died = (born.is_some() && pen.rng.chance(400)).then(|| pen.some_day(1986, 2024));
    pen.id(TableId::Person, index).stamps().maybe_time(50, 2016, 2025);
    let fjc_id = pen.rng.chance(250).then_some(1_000_000 + index);
    pen.maybe_int(fjc_id).text(&slug(&format!("{first} {last} {index}"))).text(first);
    if pen.rng.chance(500) {
        pen.initial();
    } else {
        pen.empty();
    }
    pen.text(last).of_or_empty(200, &["jr", "sr", "2", "3"]);
    pen.chosen(born).text(if born.is_some() { DAY } else { "" });
    pen.chosen(died).text(if died.is_some() { YEAR } else { "" });
    for known in [born.is_some(), died.is_some()] {
        if known {
            pen.city().state().text("United States");
        } else {
            pen.empty().empty().empty();
        }
    }
    pen.of(&["m", "m", "f", ""]).of_or_empty(300, &["ca", "pr", "je", "Greek Orthodox Church"]);
    if pen.rng.chance(100) {
        let cents = pen.rng.below(100_000_000);
        pen.decimal(cents, 2).number(1..10_000_000);
    } else {
        pen.null().null();
    }
    pen.bool(100).maybe_earlier(50, TableId::Person, index);
}

pub(super) fn race(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::Race, index).text(RACES[index as usize]);
}

pub(super) fn school(pen: &mut Pen<'_>, index: u64) {
    let city = PROSE.city(&mut pen.rng);
    let name = match pen.rng.below(4) {
        0 => format!("University of {city}"),
        1 => format!("{city} State University"),
        2 => format!("{city} College of Law"),
        _ => format!("{} School of Law, {city}", PROSE.surname(&mut pen.rng)),
    };
    pen.id(TableId::School, index).stamps().text(&name).maybe_number(750, 10_000_000..999_999_999);
    pen.maybe_earlier(20, TableId::School, index);
}

pub(super) fn position(pen: &mut Pen<'_>, index: u64) {
    let judge = pen.rng.chance(600);
    let start = pen.rng.chance(900).then(|| pen.some_day(1850, 2000));
    let end = (start.is_some() && pen.rng.chance(400)).then(|| pen.some_day(2000, 2024));
    let votes = pen.rng.chance(100);
    pen.id(TableId::Position, index).stamps();
    if judge {
        pen.of(&["jud", "c-jud", "mag", "ass-jud"]).empty().maybe_of(500, &["1", "2"]).null();
    } else {
        pen.null()
            .of(&["Associate", "Partner", "Law clerk", "Assistant U.S. Attorney"])
            .maybe_of(500, &["1", "2"])
            .company();
    }
    if pen.rng.chance(300) {
        pen.city().state();
    } else {
        pen.empty().empty();
    }
    pen.maybe_day(100, 1900, 2020).maybe_day(50, 1900, 2020).maybe_day(10, 1900, 2020).maybe_day(100, 1900, 2020);
    pen.maybe_day(100, 1900, 2020).of_or_empty(200, &["no_rep", "rep_w_rec"]).maybe_day(80, 1900, 2020);
    pen.maybe_day(150, 1900, 2020).chosen(start).text(if start.is_some() { DAY } else { "" });
    if end.is_some() {
        pen.chosen(end).of(&["retire_vol", "ded", "resign", "retire_mand"]).text(YEAR);
    } else {
        pen.null().empty().empty();
    }
    pen.maybe_day(50, 1950, 2024).of_or_empty(400, &["fed_senate", "state_senate"]);
    if votes {
        let yes = pen.rng.range(50..101);
        pen.of(&["s", "p"]).maybe_bool().int(yes).int(100 - yes).int(yes).int(100 - yes);
    } else {
        pen.empty().null().null().null().null().null();
    }
    pen.of(&["", "e_part", "e_non_part", "a_pres", "a_gov"]).bool(50).maybe_earlier(200, TableId::Position, index);
    pen.maybe_court(if judge { 1000 } else { 0 }).pick(TableId::Person).maybe_pick(100, TableId::Person);
    pen.maybe_pick(30, TableId::School).maybe_pick(30, TableId::Person);
}

pub(super) fn retention(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::Retention, index).stamps().of(&["reapp_gov", "elec_p", "elec_n", "elec_u"]).day(1950, 2024);
    if pen.rng.chance(700) {
        let yes = pen.rng.range(1..10_000);
        let votes = pen.rng.range(100..1_000);
        pen.int(yes * votes).int((10_000 - yes) * votes).decimal(yes, 2).decimal(10_000 - yes, 2);
    } else {
        pen.null().null().null().null();
    }
    pen.maybe_bool().maybe_bool().pick(TableId::Position);
}

pub(super) fn education(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::Education, index).stamps().of(&["jd", "ba", "llm", "llb", "ma", "cfa"]);
    pen.of_or_empty(300, &["B.S., magna cum laude", "LL.B. \"with honors\""]).maybe_number(800, 1880..2020);
    pen.pick(TableId::Person).pick(TableId::School);
}

pub(super) fn affiliation(pen: &mut Pen<'_>, index: u64) {
    let start = pen.rng.chance(600).then(|| pen.some_day(1900, 2024));
    pen.id(TableId::Affiliation, index).stamps().of(&["d", "r", "i", "l"]).of(&["", "b", "a", "o"]);
    pen.chosen(start).text(if start.is_some() { YEAR } else { "" }).null().empty().pick(TableId::Person);
}

pub(super) fn person_race(pen: &mut Pen<'_>, index: u64) {
    let people = pen.world.rows(TableId::Person);
    let person = index % people;
    // A person's races are neighbours on a ring, so none comes twice.
    let races = pen.world.rows(TableId::Race);
    let race = (mix(pen.world.seed, person, 1) % races + index / people) % races;
    pen.id(TableId::PersonRace, index).id(TableId::Person, person).id(TableId::Race, race);
}
