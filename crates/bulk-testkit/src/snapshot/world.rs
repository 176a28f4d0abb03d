//! How many rows each table has, their ids, and which of them refer to which.

use std::sync::LazyLock;

use super::prose::PROSE;
use super::rng::{Rng, mix};

/// The published tables, in the order of [`TABLES`](super::TABLES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableId {
    Person,
    Race,
    School,
    Court,
    Position,
    Fjc,
    Originating,
    Docket,
    Cluster,
    Panel,
    NonParticipating,
    Opinion,
    JoinedBy,
    Courthouse,
    AppealsTo,
    Cited,
    Citation,
    Parenthetical,
    Audio,
    Retention,
    Education,
    Affiliation,
    PersonRace,
    Disclosure,
    Investment,
    DisclosedPosition,
    Agreement,
    NonInvestmentIncome,
    SpouseIncome,
    Reimbursement,
    Gift,
    Debt,
    Unmatched,
}

impl TableId {
    pub(super) const ALL: [Self; 33] = [
        Self::Person,
        Self::Race,
        Self::School,
        Self::Court,
        Self::Position,
        Self::Fjc,
        Self::Originating,
        Self::Docket,
        Self::Cluster,
        Self::Panel,
        Self::NonParticipating,
        Self::Opinion,
        Self::JoinedBy,
        Self::Courthouse,
        Self::AppealsTo,
        Self::Cited,
        Self::Citation,
        Self::Parenthetical,
        Self::Audio,
        Self::Retention,
        Self::Education,
        Self::Affiliation,
        Self::PersonRace,
        Self::Disclosure,
        Self::Investment,
        Self::DisclosedPosition,
        Self::Agreement,
        Self::NonInvestmentIncome,
        Self::SpouseIncome,
        Self::Reimbursement,
        Self::Gift,
        Self::Debt,
        Self::Unmatched,
    ];

    /// Rows at scale 1, the first id, and the distance of ids, which have gaps as real ones do.
    ///
    /// Dockets, clusters, opinions and the citation map stand to each other as in the real data, at 1/1750 of its rows;
    /// small tables are larger than that, so that something is in them.
    const fn size(self) -> (u64, u64, u64) {
        match self {
            Self::Person => (1_500, 1, 3),
            Self::Race | Self::Court => (0, 1, 1),
            Self::School => (400, 1_000, 7),
            Self::Position => (4_000, 1, 4),
            Self::Fjc => (5_000, 6_000_000, 3),
            Self::Originating => (600, 100, 5),
            Self::Docket => (36_000, 4_000_000, 5),
            Self::Cluster => (5_500, 84_000, 3),
            Self::Panel => (2_500, 1, 2),
            Self::NonParticipating => (100, 1, 2),
            Self::Opinion => (6_000, 84_000, 3),
            Self::JoinedBy => (800, 1, 3),
            Self::Courthouse => (100, 1, 1),
            Self::AppealsTo => (60, 1, 1),
            Self::Cited => (50_000, 1_000, 4),
            Self::Citation => (10_000, 500, 3),
            Self::Parenthetical => (4_000, 1, 3),
            Self::Audio => (60, 7_000, 9),
            Self::Retention => (200, 1, 2),
            Self::Education => (1_200, 1, 2),
            Self::Affiliation => (800, 1, 2),
            Self::PersonRace => (1_000, 1, 2),
            Self::Disclosure => (500, 1, 6),
            Self::Investment => (6_000, 1, 2),
            Self::DisclosedPosition | Self::Agreement | Self::NonInvestmentIncome | Self::SpouseIncome => (300, 1, 2),
            Self::Reimbursement => (600, 1, 2),
            Self::Gift => (60, 1, 2),
            Self::Debt => (200, 1, 2),
            Self::Unmatched => (5_000, 1, 2),
        }
    }

    /// The most rows the table has at any scale: there are so many courts and races, and so many pairs of them.
    fn most(self) -> u64 {
        match self {
            Self::Race => RACES.len() as u64,
            Self::Court => COURTS.len() as u64,
            Self::Courthouse => 500,
            Self::AppealsTo => 200,
            Self::School => 40_000,
            _ => u64::MAX,
        }
    }

    /// Rows at scale 1, where the number of rows grows with the scale without end.
    pub(super) fn grows(self) -> Option<u64> {
        (self.most() == u64::MAX).then_some(self.size().0)
    }
}

/// The number of rows of a table that exists at all: link tables need some parents to make pairs of.
const LEAST: u64 = 12;

/// The largest scale: beyond it ids would not fit an integer.
pub(super) const MAX_SCALE: f64 = 5_000.0;

/// Ids from here on belong to no row.
const FIRST_MISSING: u64 = 1_900_000_000;

/// Seed and scale, and what follows from them.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    rows: [u64; TableId::ALL.len()],
}

impl World {
    pub(super) fn new(seed: u64, scale: f64) -> Self {
        let rows = TableId::ALL.map(|table| {
            let rows = match table {
                _ if scale == 0.0 => 0,
                TableId::Race | TableId::Court => u64::MAX,
                _ => ((table.size().0 as f64 * scale).round() as u64).max(LEAST),
            };
            rows.min(table.most())
        });
        Self { seed, rows }
    }

    pub(super) fn rows(&self, table: TableId) -> u64 {
        self.rows[table as usize]
    }

    /// The id of row `index`. Ids rise with the index, with gaps.
    pub(super) fn id(&self, table: TableId, index: u64) -> u64 {
        let (_, first, stride) = table.size();
        first + index * stride + mix(table as u64, index, 0) % stride
    }

    /// The id of some row.
    pub(super) fn pick(&self, table: TableId, rng: &mut Rng) -> u64 {
        self.id(table, rng.below(self.rows(table)))
    }

    /// The index of the row that a child belongs to, where children are spread over all parents in order.
    pub(super) fn spread(&self, child: TableId, index: u64, parent: TableId, rng: &mut Rng) -> u64 {
        let (children, parents) = (self.rows(child), self.rows(parent));
        if index < children { index * parents / children } else { rng.below(parents) }
    }

    /// The index of the row that `index` alone refers to, if it does: no two rows get the same.
    pub(super) fn one_to_one(&self, child: TableId, index: u64, parent: TableId) -> Option<u64> {
        let (children, parents) = (self.rows(child), self.rows(parent).min(self.rows(child)));
        let at = |index: u64| index * parents / children;
        (index < children && (index + 1 == children || at(index + 1) != at(index))).then(|| at(index))
    }

    pub(super) fn missing(ordinal: u64) -> u64 {
        FIRST_MISSING + ordinal
    }

    pub(super) fn court(&self, rng: &mut Rng) -> &'static Court {
        &COURTS[rng.below(COURTS.len() as u64) as usize]
    }

    /// A court after the number of its cases: a few have most of them.
    pub(super) fn busy_court(&self, rng: &mut Rng) -> &'static Court {
        &COURTS[rng.zipf(COURTS.len())]
    }
}

/// The codes of people_db_race.
pub(super) const RACES: &[&str] = &["w", "b", "i", "a", "p", "h", "o"];

/// A court; the same set at every seed and scale.
#[derive(Debug)]
pub(super) struct Court {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) short: String,
    pub(super) jurisdiction: &'static str,
    pub(super) parent: Option<String>,
}

pub(super) static COURTS: LazyLock<Vec<Court>> = LazyLock::new(|| {
    let mut out = Vec::new();
    let mut add = |id: String, name: String, short: String, jurisdiction, parent| {
        out.push(Court { id, name, short, jurisdiction, parent });
    };
    add("scotus".into(), "Supreme Court of the United States".into(), "Supreme Court".into(), "F", None);
    for (number, ordinal) in
        ["First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth", "Eleventh"]
            .into_iter()
            .enumerate()
    {
        let (id, name) = (format!("ca{}", number + 1), format!("Court of Appeals for the {ordinal} Circuit"));
        add(id, name, format!("{ordinal} Circuit"), "F", None);
    }
    for (id, name) in [("cadc", "D.C."), ("cafc", "Federal")] {
        add(id.into(), format!("Court of Appeals for the {name} Circuit"), format!("{name} Circuit"), "F", None);
    }
    for (index, state) in PROSE.states.iter().enumerate() {
        let low = state.to_lowercase();
        let circuit = format!("ca{}", index % 11 + 1);
        add(format!("{low}d"), format!("District Court, D. {state}"), format!("D. {state}"), "FD", Some(circuit));
        let parent = Some(format!("{low}d"));
        add(
            format!("{low}b"),
            format!("United States Bankruptcy Court, D. {state}"),
            format!("Bankr. {state}"),
            "FB",
            parent,
        );
        add(low.clone(), format!("Supreme Court of {state}"), format!("{state} Supreme Court"), "S", None);
        let name = format!("Court of Appeals of {state}");
        add(format!("{low}ctapp"), name, format!("{state} Ct. App."), "SA", Some(low));
    }
    out
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enum_follows_the_catalog() {
        let indexes: Vec<usize> = TableId::ALL.iter().map(|table| *table as usize).collect();
        assert_eq!(indexes, (0..super::super::TABLES.len()).collect::<Vec<_>>());
        assert_eq!(super::super::TABLES[TableId::Cluster as usize].name, "search_opinioncluster");
        assert_eq!(super::super::TABLES[TableId::PersonRace as usize].name, "people_db_person_race");
        assert_eq!(super::super::TABLES[TableId::Unmatched as usize].name, "citations_unmatchedcitation");
    }

    #[test]
    fn ids_fit_an_integer_at_the_largest_scale() {
        let world = World::new(1, MAX_SCALE);
        for table in TableId::ALL {
            assert!(world.id(table, world.rows(table)) < FIRST_MISSING, "{table:?}");
        }
    }

    #[test]
    fn one_to_one_is_what_it_says() {
        for scale in [0.001, 0.02, 1.0] {
            let world = World::new(1, scale);
            let taken: Vec<u64> = (0..world.rows(TableId::Docket))
                .filter_map(|index| world.one_to_one(TableId::Docket, index, TableId::Originating))
                .collect();
            assert_eq!(taken, (0..world.rows(TableId::Originating)).collect::<Vec<_>>());
        }
    }
}
