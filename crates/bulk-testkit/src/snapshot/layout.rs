//! The order of rows in a file, and how it is cut into units that can be made independently.

use super::dialect::Dialect;
use super::pen::Pen;
use super::rng::mix;
use super::truth::RowSum;
use super::world::{T, World};
use super::{Orphan, TABLES, nasty};
use super::{disclosures, people, search};

/// Which rows of a table stand where. Rows come in the order of their ids but for one in 64, which was updated and so
/// moved to the end of the heap; orphans and nasty rows are spread evenly among the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) table: T,
    seed: u64,
    ordinary: u64,
    orphans: u64,
    /// The ordinal, among all orphans of the snapshot, of this table's first.
    first_orphan: u64,
    nasty: u64,
}

/// One in so many rows stands at the end of the file.
const MOVED: u64 = 64;

/// A stretch of places, and whether it yields the rows that stayed or those that moved to the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) first: u64,
    end: u64,
    moved: bool,
}

impl Layout {
    pub(super) fn new(world: &World, table: T, orphans: std::ops::Range<u64>, with_nasty: bool) -> Self {
        let ordinary = world.rows(table);
        let nasty = if with_nasty && ordinary > 0 { nasty::rows(table) } else { 0 };
        Self {
            table,
            seed: world.seed,
            ordinary,
            orphans: orphans.end - orphans.start,
            first_orphan: orphans.start,
            nasty,
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.ordinary + self.orphans + self.nasty
    }

    fn is_moved(&self, place: u64) -> bool {
        mix(self.seed, !(self.table as u64), place) % MOVED == 0
    }

    /// Rows in one unit: some megabytes of CSV.
    fn rows_per_unit(&self) -> u64 {
        match self.table {
            T::Opinion => 128,
            T::Audio => 64,
            T::Cluster => 2_048,
            T::Docket => 6_144,
            _ => 24_576,
        }
    }

    /// The units whose rows, one after another, are the table; at least one.
    pub(super) fn units(&self) -> impl Iterator<Item = Unit> + use<> {
        let (rows, each) = (self.rows(), self.rows_per_unit());
        let cut = move |each: u64, moved| {
            (0..rows.div_ceil(each).max(1))
                .map(move |at| Unit { first: at * each, end: ((at + 1) * each).min(rows), moved })
        };
        cut(each, false).chain(cut(each * MOVED, true))
    }

    /// The rows of a unit, each written with `pen` and then given to `take`, which says whether to go on.
    pub(super) fn make(&self, unit: Unit, pen: &mut Pen<'_>, mut take: impl FnMut(&mut Pen<'_>) -> bool) {
        for place in (unit.first..unit.end).filter(|place| self.is_moved(*place) == unit.moved) {
            self.write(place, pen);
            if !take(pen) {
                return;
            }
        }
    }

    /// Writes the row of a place.
    pub(super) fn write(&self, place: u64, pen: &mut Pen<'_>) {
        let (extra, rows) = (self.orphans + self.nasty, self.rows());
        let before = place * extra / rows;
        if (place + 1) * extra / rows == before {
            let index = place - before;
            pen.start(self.table, index);
            ordinary(self.table, pen, index);
            return;
        }
        let index = self.ordinary + before;
        pen.start(self.table, index);
        if before < self.orphans {
            self.orphan(pen, before);
        } else {
            ordinary(self.table, pen, index);
            nasty::spoil(pen, self.table, before - self.orphans);
        }
    }

    fn orphan(&self, pen: &mut Pen<'_>, ordinal: u64) -> (&'static str, u64) {
        let missing = World::missing(self.first_orphan + ordinal);
        let index = self.ordinary + ordinal;
        pen.start(self.table, index);
        let column = match self.table {
            T::Citation => {
                search::citation_of(pen, index, Some(missing));
                "cluster_id"
            }
            _ => search::orphan_cited(pen, index, missing),
        };
        (column, missing)
    }

    /// The rows without a parent.
    pub(super) fn orphans(&self, pen: &mut Pen<'_>) -> Vec<Orphan> {
        (0..self.orphans)
            .map(|ordinal| {
                let (column, missing) = self.orphan(pen, ordinal);
                let id = pen.world.id(self.table, self.ordinary + ordinal);
                Orphan { table: TABLES[self.table as usize].name, id, column, missing }
            })
            .collect()
    }

    /// The CSV of a unit, appended to `csv`: the header before the first, and its rows.
    pub(super) fn print(&self, unit: Unit, pen: &mut Pen<'_>, dialect: Dialect, sum: &mut RowSum, csv: &mut Vec<u8>) -> u64 {
        if unit.first == 0 && !unit.moved {
            csv.extend_from_slice(self.header().as_bytes());
        }
        let mut rows = 0;
        self.make(unit, pen, |pen| {
            dialect.encode(&pen.row, csv);
            sum.add(&pen.row);
            rows += 1;
            true
        });
        rows
    }

    /// The header line.
    pub(super) fn header(&self) -> String {
        TABLES[self.table as usize].csv.join(",") + "\n"
    }
}

fn ordinary(table: T, pen: &mut Pen<'_>, index: u64) {
    let write = match table {
        T::Person => people::person,
        T::Race => people::race,
        T::School => people::school,
        T::Court => search::court,
        T::Position => people::position,
        T::Fjc => search::fjc,
        T::Originating => search::originating,
        T::Docket => search::docket,
        T::Cluster => search::cluster,
        T::Panel => search::panel,
        T::NonParticipating => search::non_participating,
        T::Opinion => search::opinion,
        T::JoinedBy => search::joined_by,
        T::Courthouse => search::courthouse,
        T::AppealsTo => search::appeals_to,
        T::Cited => search::cited,
        T::Citation => search::citation,
        T::Parenthetical => search::parenthetical,
        T::Audio => search::audio,
        T::Retention => people::retention,
        T::Education => people::education,
        T::Affiliation => people::affiliation,
        T::PersonRace => people::person_race,
        T::Disclosure => disclosures::disclosure,
        T::Investment => disclosures::investment,
        T::DisclosedPosition => disclosures::position,
        T::Agreement => disclosures::agreement,
        T::NonInvestmentIncome => disclosures::non_investment_income,
        T::SpouseIncome => disclosures::spouse_income,
        T::Reimbursement => disclosures::reimbursement,
        T::Gift => disclosures::gift,
        T::Debt => disclosures::debt,
        T::Unmatched => search::unmatched,
    };
    write(pen, index);
}
