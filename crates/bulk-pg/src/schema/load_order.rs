//! Orders tables so that parents come before their children.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{ForeignKey, Schema};
use crate::ident::TableName;

/// Tables in an order that satisfies their foreign keys as far as any order can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOrder<'a> {
    /// Every wanted table once, parents before children.
    pub tables: Vec<TableName>,
    /// The foreign keys between wanted tables that this order does not satisfy: those of a table to itself, and in each
    /// cycle those that were passed over. In the order of the file.
    pub unsatisfied: Vec<&'a ForeignKey>,
}

impl<'a> LoadOrder<'a> {
    /// Takes the first wanted table whose parents have all been taken, again and again. Where a cycle leaves none, it
    /// takes, of the tables that wait for nothing but each other, the one with the fewest parents missing, the earliest
    /// wanted if there are several.
    pub(super) fn new(schema: &'a Schema, wanted: &[TableName]) -> Self {
        let mut seen = BTreeSet::new();
        let mut waiting: Vec<&TableName> = wanted.iter().filter(|table| seen.insert(*table)).collect();
        let mut parents: BTreeMap<&TableName, BTreeSet<&TableName>> =
            waiting.iter().map(|table| (*table, BTreeSet::new())).collect();
        let keys = || schema.foreign_keys().map(|key| (&key.table, &key.references));
        let inline = schema.tables().flat_map(|table| table.references.iter().map(move |parent| (&table.name, parent)));
        for (child, parent) in keys().chain(inline) {
            if child != parent
                && seen.contains(parent)
                && let Some(set) = parents.get_mut(child)
            {
                set.insert(parent);
            }
        }
        let mut tables: Vec<TableName> = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let next = waiting.iter().position(|table| parents[table].is_empty()).unwrap_or_else(|| {
                let cost = |index: &usize| (ancestors(&parents, waiting[*index]), parents[waiting[*index]].len());
                (0..waiting.len()).min_by_key(cost).unwrap_or_default()
            });
            let table = waiting.remove(next);
            parents.remove(table);
            parents.values_mut().for_each(|set| {
                set.remove(table);
            });
            tables.push(table.clone());
        }
        let place: BTreeMap<&TableName, usize> = tables.iter().enumerate().map(|(at, table)| (table, at)).collect();
        let unsatisfied = schema.foreign_keys().filter(|key| {
            place.get(&key.table).zip(place.get(&key.references)).is_some_and(|(child, parent)| parent >= child)
        });
        Self { unsatisfied: unsatisfied.collect(), tables }
    }
}

/// How many tables this one waits for, over any number of steps, itself counted: least for those that wait for nothing
/// but each other.
fn ancestors(parents: &BTreeMap<&TableName, BTreeSet<&TableName>>, table: &TableName) -> usize {
    let mut found: BTreeSet<&TableName> = BTreeSet::from([table]);
    let mut queue: VecDeque<&TableName> = VecDeque::from([table]);
    while let Some(next) = queue.pop_front() {
        for parent in parents.get(next).into_iter().flatten() {
            if found.insert(parent) {
                queue.push_back(parent);
            }
        }
    }
    found.len()
}
