//! Writes the cells of one row from the numbers of one generator.

use super::prose::{PROSE, Prose, Text, letter};
use super::rng::{Rng, mix};
use super::row::{Row, new_year};
use super::world::{TableId, World};

/// What a row is written with. Its methods each write one cell, or a few that belong together.
pub(super) struct Pen<'a> {
    pub(super) world: &'a World,
    pub(super) rng: Rng,
    pub(super) row: Row,
    pub(super) scratch: Text,
}

const MICROS_A_DAY: u64 = 86_400_000_000;

impl<'a> Pen<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self { world, rng: Rng::new(0), row: Row::default(), scratch: Text::default() }
    }

    /// Begins the row `index` of `table`: what follows depends on the seed, the table and the index alone.
    pub(super) fn start(&mut self, table: TableId, index: u64) {
        self.rng = Rng::new(mix(self.world.seed, table as u64, index));
        self.row.clear();
    }

    pub(super) fn id(&mut self, table: TableId, index: u64) -> &mut Self {
        let id = self.world.id(table, index);
        self.int(id)
    }

    /// The id of some row of `table`.
    pub(super) fn pick(&mut self, table: TableId) -> &mut Self {
        let id = self.world.pick(table, &mut self.rng);
        self.int(id)
    }

    /// The id of some row of `table` in `permille` of a thousand cases, else NULL.
    pub(super) fn maybe_pick(&mut self, permille: u64, table: TableId) -> &mut Self {
        if self.rng.chance(permille) { self.pick(table) } else { self.null() }
    }

    /// The id of an earlier row of the same table in `permille` of a thousand cases, else NULL.
    pub(super) fn maybe_earlier(&mut self, permille: u64, table: TableId, index: u64) -> &mut Self {
        let earlier = index.min(self.world.rows(table));
        if earlier > 0 && self.rng.chance(permille) {
            let earlier = self.rng.below(earlier);
            self.id(table, earlier)
        } else {
            self.null()
        }
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.row.null();
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.row.text(text);
        self
    }

    pub(super) fn empty(&mut self) -> &mut Self {
        self.text("")
    }

    pub(super) fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        self.row.maybe(text);
        self
    }

    pub(super) fn int(&mut self, number: u64) -> &mut Self {
        self.row.int(number);
        self
    }

    pub(super) fn maybe_int(&mut self, number: Option<u64>) -> &mut Self {
        self.row.maybe_int(number);
        self
    }

    /// A number of `range`, its end not included.
    pub(super) fn number(&mut self, range: std::ops::Range<u64>) -> &mut Self {
        let number = self.rng.range(range);
        self.int(number)
    }

    pub(super) fn maybe_number(&mut self, permille: u64, range: std::ops::Range<u64>) -> &mut Self {
        if self.rng.chance(permille) { self.number(range) } else { self.null() }
    }

    /// `number` / 10^`places`
    pub(super) fn decimal(&mut self, number: u64, places: u32) -> &mut Self {
        self.row.decimal(number, places);
        self
    }

    pub(super) fn bool(&mut self, permille: u64) -> &mut Self {
        let value = self.rng.chance(permille);
        self.row.bool(value);
        self
    }

    /// True, false or NULL.
    pub(super) fn maybe_bool(&mut self) -> &mut Self {
        let value = [Some(true), Some(false), None][self.rng.below(3) as usize];
        self.row.maybe_bool(value);
        self
    }

    pub(super) fn of(&mut self, choices: &[&str]) -> &mut Self {
        let choice = self.rng.of(choices);
        self.text(choice)
    }

    pub(super) fn maybe_of(&mut self, permille: u64, choices: &[&str]) -> &mut Self {
        if self.rng.chance(permille) { self.of(choices) } else { self.null() }
    }

    /// One of `choices` in `permille` of a thousand cases, else the empty string.
    pub(super) fn of_or_empty(&mut self, permille: u64, choices: &[&str]) -> &mut Self {
        if self.rng.chance(permille) { self.of(choices) } else { self.empty() }
    }

    /// What `write` makes in `permille` of a thousand cases, else the empty string.
    pub(super) fn or_empty(&mut self, permille: u64, write: impl FnOnce(&mut Rng) -> String) -> &mut Self {
        if self.rng.chance(permille) {
            let text = write(&mut self.rng);
            self.text(&text)
        } else {
            self.empty()
        }
    }

    /// `bytes` or more of prose in `permille` of a thousand cases, else the empty string.
    pub(super) fn prose(&mut self, permille: u64, bytes: u64) -> &mut Self {
        self.or_empty(permille, |rng| {
            let mut out = String::new();
            PROSE.passage(rng, bytes as usize, &mut out);
            out
        })
    }

    /// A day of the years `from` to before `to`; now and then 1750-01-01, which means that nobody knows.
    pub(super) fn some_day(&mut self, from: i64, to: i64) -> i64 {
        if self.rng.chance(3) {
            return new_year(1750);
        }
        let (first, end) = (new_year(from), new_year(to));
        first + self.rng.below((end - first) as u64) as i64
    }

    pub(super) fn day(&mut self, from: i64, to: i64) -> &mut Self {
        let day = self.some_day(from, to);
        self.row.maybe_day(Some(day));
        self
    }

    pub(super) fn maybe_day(&mut self, permille: u64, from: i64, to: i64) -> &mut Self {
        if self.rng.chance(permille) { self.day(from, to) } else { self.null() }
    }

    /// A day that was chosen before.
    pub(super) fn chosen(&mut self, day: Option<i64>) -> &mut Self {
        self.row.maybe_day(day);
        self
    }

    pub(super) fn time(&mut self, day: i64) -> &mut Self {
        let micros = self.rng.below(MICROS_A_DAY);
        let micros = if self.rng.chance(100) { micros / 1_000_000 * 1_000_000 } else { micros };
        self.row.time(day, micros);
        self
    }

    pub(super) fn maybe_time(&mut self, permille: u64, from: i64, to: i64) -> &mut Self {
        if self.rng.chance(permille) {
            let day = self.some_day(from, to);
            self.time(day)
        } else {
            self.null()
        }
    }

    /// date_created and date_modified.
    pub(super) fn stamps(&mut self) -> &mut Self {
        let created = self.some_day(2010, 2024);
        let modified = created + 1 + self.rng.below(700) as i64;
        self.time(created).time(modified)
    }

    pub(super) fn sha1(&mut self) -> &mut Self {
        for _ in 0..5 {
            let digits = format!("{:08x}", self.rng.next() as u32);
            self.row.put(&digits);
        }
        self.row.end();
        self
    }

    pub(super) fn court(&mut self) -> &mut Self {
        let court = self.world.court(&mut self.rng);
        self.text(&court.id)
    }

    pub(super) fn maybe_court(&mut self, permille: u64) -> &mut Self {
        if self.rng.chance(permille) { self.court() } else { self.null() }
    }

    pub(super) fn city(&mut self) -> &mut Self {
        let city = PROSE.city(&mut self.rng);
        self.text(city)
    }

    pub(super) fn state(&mut self) -> &mut Self {
        let state = PROSE.state(&mut self.rng);
        self.text(state)
    }

    pub(super) fn company(&mut self) -> &mut Self {
        let company = PROSE.company(&mut self.rng);
        self.text(&company)
    }

    /// The short, the usual and the full name of a case; the last is often empty.
    pub(super) fn case(&mut self) -> [String; 3] {
        let rng = &mut self.rng;
        let (a, b) = (PROSE.party(rng), PROSE.party(rng));
        let name = format!("{a} v. {b}");
        let full = if rng.chance(400) {
            format!("{}, et al., Plaintiffs-Appellants, v. {b}, Defendant-Appellee", PROSE.person(rng))
        } else {
            String::new()
        };
        let short = if rng.chance(600) { a } else { String::new() };
        [short, name, full]
    }

    /// Initials with a point.
    pub(super) fn initial(&mut self) -> &mut Self {
        let letter = letter(&mut self.rng);
        self.row.put(letter.encode_utf8(&mut [0; 4])).put(".").end();
        self
    }
}

/// A docket number of a federal court.
pub(super) fn federal_number(year: u64, kind: &str, ordinal: u64) -> String {
    format!("{}:{:02}-{kind}-{ordinal:05}", ordinal % 9 + 1, year % 100)
}

/// A citation as one string.
pub(super) fn cite(rng: &mut Rng) -> String {
    let (volume, reporter, page, _) = Prose::citation(rng);
    format!("{volume} {reporter} {page}")
}
