//! The packet filter in memory.

use std::collections::BTreeMap;

use super::super::error::{Cause, NetworkError};
use super::super::filter::{Change, Data, Element, Filter, Listed, Set, Table, TableObjects, Verdict};
use super::super::foreign::ForeignChain;
use super::ruleset::{self, FakeSet, FakeTable};
use super::{FakeNetwork, World};

impl World {
    fn table(&self, table: &Table) -> Result<&FakeTable, Cause> {
        self.tables.get(table).ok_or(Cause::NotThere)
    }
}

impl FakeTable {
    fn set(&self, name: &str) -> Result<&FakeSet, Cause> {
        self.sets.get(name).ok_or(Cause::NotThere)
    }

    fn change(&mut self, change: &Change) -> Result<(), Cause> {
        if let Some(called) = called(change) {
            self.chains.iter().find(|chain| chain.name == called).ok_or(Cause::NotThere)?;
        }
        let set = self.sets.get_mut(change.set()).ok_or(Cause::NotThere)?;
        match change {
            Change::Remove { key, .. } => {
                let span = set.layout.span(key)?;
                set.elements.remove(&span);
            }
            Change::Add { element, .. } => set.add(element)?,
        }
        Ok(())
    }
}

/// The chain that a change wants to be there.
fn called(change: &Change) -> Option<&str> {
    let Change::Add { element, .. } = change else { return None };
    match &element.data {
        Some(Data::Verdict(Verdict::Jump(name) | Verdict::Goto(name))) => Some(name),
        _ => None,
    }
}

impl FakeSet {
    fn add(&mut self, element: &Element) -> Result<(), Cause> {
        let layout = &self.layout;
        let (first, last) = layout.span(&element.key)?;
        let data = match (layout.value(element)?, &element.data) {
            (Some(value), _) => Some(Data::Value(layout.mapped(&value))),
            (None, data) => data.clone(),
        };
        let element = Element { key: layout.key(&first, &last), data };
        match self.elements.get(&(first.clone(), last.clone())) {
            Some(known) if *known != element => return Err(Cause::AlreadyThere),
            Some(_) => return Ok(()),
            None => {}
        }
        // Intervals of a set do not overlap; with several parts in a key that is not looked at here.
        let overlaps = |(begin, end): &(Vec<u8>, Vec<u8>)| *begin <= last && first <= *end;
        if layout.interval && !layout.concatenated() && self.elements.keys().any(overlaps) {
            return Err(Cause::AlreadyThere);
        }
        self.elements.insert((first, last), element);
        Ok(())
    }
}

impl Filter for FakeNetwork {
    fn load_ruleset(&self, ruleset: &str) -> Result<(), NetworkError> {
        self.step("load", "the ruleset", |world| ruleset::apply(&mut world.tables, ruleset))
    }

    fn change_elements(&self, table: &Table, changes: &[Change]) -> Result<(), NetworkError> {
        let mut changed: Option<FakeTable> = None;
        for change in changes {
            let (operation, object) = change.words(table);
            changed = self.step(&operation, &object, |world| {
                let mut copy = changed.map_or_else(|| world.table(table).cloned(), Ok)?;
                copy.change(change)?;
                Ok(Some(copy))
            })?;
        }
        let Some(changed) = changed else { return Ok(()) };
        self.step("change", &table.to_string(), |world| {
            world.tables.insert(table.clone(), changed);
            Ok(())
        })
    }

    fn elements(&self, table: &Table, set: &str) -> Result<Vec<Listed>, NetworkError> {
        self.step("list", &format!("set {set} of {table}"), |world| {
            let elements: &BTreeMap<_, Element> = &world.table(table)?.set(set)?.elements;
            Ok(elements.values().map(|element| Listed { element: element.clone(), counted: None }).collect())
        })
    }

    fn tables(&self) -> Result<Vec<Table>, NetworkError> {
        self.step("list", "the tables", |world| Ok(world.tables.keys().cloned().collect()))
    }

    fn table(&self, table: &Table) -> Result<TableObjects, NetworkError> {
        self.step("look at", &table.to_string(), |world| {
            let found = world.table(table)?;
            let sets = found.sets.iter().map(|(name, set)| Set { name: name.clone(), map: set.map }).collect();
            Ok(TableObjects { chains: found.chains.clone(), sets })
        })
    }

    fn foreign_chains(&self, ours: &[Table]) -> Result<Vec<ForeignChain>, NetworkError> {
        self.step("list", "the chains of others", |world| {
            Ok(world.foreign.iter().filter(|chain| !ours.contains(&chain.table)).cloned().collect())
        })
    }
}
