//! The order of rows in a file, and how it is cut into units that can be made independently.

use std::ops::Range;

use super::dialect::Dialect;
use super::pen::Pen;
use super::rng::mix;
use super::truth::RowSum;
use super::world::{TableId, World};
use super::{Orphan, TABLES, nasty};
use super::{disclosures, people, search};

/// Which rows of a table stand where. Rows come in the order of their ids but for one in 64, which was updated and so
/// moved to the end of the heap; orphans and nasty rows are spread evenly among the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) table: TableId,
    seed: u64,
    ordinary: u64,
    orphans: u64,
    /// The ordinal, among all orphans of the snapshot, of this table's first.
    first_orphan: u64,
    nasty: u64,
}

/// One in so many rows stands at the end of the file.
const MOVED: u64 = 64;

/// Places whose rows stayed, then places whose rows moved to the end.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    stayed: Range<u64>,
    moved: Range<u64>,
}

impl Layout {
    pub(super) fn new(world: &World, table: TableId, orphans: Range<u64>, with_nasty: bool) -> Self {
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
        mix(self.seed, !(self.table as u64), place).is_multiple_of(MOVED)
    }

    /// Rows in one unit: some megabytes of CSV.
    fn rows_per_unit(&self) -> u64 {
        match self.table {
            TableId::Opinion => 128,
            TableId::Audio => 64,
            TableId::Cluster => 2_048,
            TableId::Docket => 6_144,
            _ => 24_576,
        }
    }

    /// The units whose rows, one after another, are the table; at least one, and one alone where the table is small.
    pub(super) fn units(&self) -> impl Iterator<Item = Unit> + use<> {
        let (rows, each) = (self.rows(), self.rows_per_unit());
        let cut = move |each: u64| (0..rows.div_ceil(each)).map(move |at| at * each..((at + 1) * each).min(rows));
        let whole = (rows <= each).then_some(Unit { stayed: 0..rows, moved: 0..rows });
        let is_cut = whole.is_none();
        let stayed = cut(each).map(|stayed| Unit { stayed, moved: 0..0 });
        let moved = cut(each * MOVED).map(|moved| Unit { stayed: 0..0, moved });
        whole.into_iter().chain(stayed.chain(moved).filter(move |_| is_cut))
    }

    /// The rows of a unit, each written with `pen` and then given to `take`, which says whether to go on.
    pub(super) fn make(&self, unit: Unit, pen: &mut Pen<'_>, mut take: impl FnMut(&mut Pen<'_>) -> bool) {
        let stayed = unit.stayed.filter(|place| !self.is_moved(*place));
        for place in stayed.chain(unit.moved.filter(|place| self.is_moved(*place))) {
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
            TableId::Citation => {
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
    pub(super) fn print(
        &self,
        unit: Unit,
        pen: &mut Pen<'_>,
        dialect: Dialect,
        sum: &mut RowSum,
        csv: &mut Vec<u8>,
    ) -> u64 {
        if unit.begins() {
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

impl Unit {
    /// Whether it is the first of its file. Only it has rows that stayed from place 0 on, if there are any.
    fn begins(&self) -> bool {
        self.stayed.start == 0 && (self.stayed.end > 0 || self.moved.end == 0)
    }
}

fn ordinary(table: TableId, pen: &mut Pen<'_>, index: u64) {
    let write = match table {
        TableId::Person => people::person,
        TableId::Race => people::race,
        TableId::School => people::school,
        TableId::Court => search::court,
        TableId::Position => people::position,
        TableId::Fjc => search::fjc,
        TableId::Originating => search::originating,
        TableId::Docket => search::docket,
        TableId::Cluster => search::cluster,
        TableId::Panel => search::panel,
        TableId::NonParticipating => search::non_participating,
        TableId::Opinion => search::opinion,
        TableId::JoinedBy => search::joined_by,
        TableId::Courthouse => search::courthouse,
        TableId::AppealsTo => search::appeals_to,
        TableId::Cited => search::cited,
        TableId::Citation => search::citation,
        TableId::Parenthetical => search::parenthetical,
        TableId::Audio => search::audio,
        TableId::Retention => people::retention,
        TableId::Education => people::education,
        TableId::Affiliation => people::affiliation,
        TableId::PersonRace => people::person_race,
        TableId::Disclosure => disclosures::disclosure,
        TableId::Investment => disclosures::investment,
        TableId::DisclosedPosition => disclosures::position,
        TableId::Agreement => disclosures::agreement,
        TableId::NonInvestmentIncome => disclosures::non_investment_income,
        TableId::SpouseIncome => disclosures::spouse_income,
        TableId::Reimbursement => disclosures::reimbursement,
        TableId::Gift => disclosures::gift,
        TableId::Debt => disclosures::debt,
        TableId::Unmatched => search::unmatched,
    };
    write(pen, index);
}
