//! As much of nft's language as is needed to know which tables, chains, sets and maps a ruleset makes. Rules, and the
//! elements that a ruleset gives a set, are passed over.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::super::error::Cause;
use super::super::filter::{Chain, Element, Family, Hook, Table};
use super::super::layout::{Kind, Layout, Mapping, Span, kind_by_word};

/// A table in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeTable {
    pub(super) chains: Vec<Chain>,
    pub(super) sets: BTreeMap<String, FakeSet>,
}

/// A set or map in memory.
#[derive(Debug, Clone)]
pub(super) struct FakeSet {
    pub(super) layout: Layout,
    pub(super) map: bool,
    pub(super) elements: BTreeMap<Span, Element>,
}

type Tables = BTreeMap<Table, FakeTable>;

/// Applies a ruleset as a whole or not at all.
pub(super) fn apply(tables: &mut Tables, ruleset: &str) -> Result<(), Cause> {
    let mut changed = tables.clone();
    let mut words = Words(words(ruleset).into_iter().peekable());
    while let Some(word) = words.0.next() {
        match word.as_str() {
            ";" | "add" => {}
            "flush" => {
                words.expect("ruleset")?;
                changed.clear();
            }
            "delete" => {
                words.expect("table")?;
                let table = words.table()?;
                changed.remove(&table).ok_or_else(|| invalid(&format!("{table} is not there")))?;
            }
            "table" => {
                let table = words.table()?;
                let known = changed.entry(table).or_default();
                if words.0.next_if(|word| word == "{").is_some() {
                    words.block(known)?;
                }
            }
            other => return Err(invalid(&format!("the fake does not know {other:?}"))),
        }
    }
    *tables = changed;
    Ok(())
}

fn invalid(why: &str) -> Cause {
    Cause::Invalid(why.to_owned())
}

/// Words, braces, and `;` for ends of statements and lines.
fn words(ruleset: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in ruleset.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let spaced = line.replace('{', " { ").replace('}', " } ").replace(';', " ; ").replace(',', " ");
        words.extend(spaced.split_whitespace().map(|word| word.trim_matches('"').to_owned()));
        words.push(";".to_owned());
    }
    words
}

struct Words(Peekable<IntoIter<String>>);

impl Words {
    fn next(&mut self) -> Result<String, Cause> {
        self.0.next().ok_or_else(|| invalid("the ruleset ends too early"))
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Cause> {
        let word = self.next()?;
        if word == wanted { Ok(()) } else { Err(invalid(&format!("{word:?} stands where {wanted:?} should"))) }
    }

    fn table(&mut self) -> Result<Table, Cause> {
        let word = self.next()?;
        match Family::from_word(&word) {
            Some(family) => Ok(Table::new(family, self.next()?)),
            None => Ok(Table::new(Family::Ip, word)),
        }
    }

    /// What stands between the braces of a table.
    fn block(&mut self, table: &mut FakeTable) -> Result<(), Cause> {
        loop {
            match self.next()?.as_str() {
                "}" => return Ok(()),
                ";" => {}
                "chain" => {
                    let name = self.next()?;
                    let hook = self.chain()?;
                    table.chains.retain(|chain| chain.name != name);
                    table.chains.push(Chain { name, hook });
                }
                kind @ ("set" | "map") => {
                    let name = self.next()?;
                    let set = self.set(kind == "map")?;
                    table.sets.entry(name).or_insert(set);
                }
                other => return Err(invalid(&format!("the fake does not know {other:?} in a table"))),
            }
        }
    }

    /// The statements between braces, without those in braces of their own.
    fn statements(&mut self) -> Result<Vec<Vec<String>>, Cause> {
        self.expect("{")?;
        let (mut statements, mut statement, mut depth) = (Vec::new(), Vec::new(), 1);
        while depth > 0 {
            let word = self.next()?;
            match word.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                ";" if depth == 1 => statements.push(std::mem::take(&mut statement)),
                _ if depth == 1 => statement.push(word),
                _ => {}
            }
        }
        statements.push(statement);
        Ok(statements)
    }

    fn chain(&mut self) -> Result<Option<Hook>, Cause> {
        let (mut found, mut drops) = (None, false);
        for statement in self.statements()? {
            let words: Vec<&str> = statement.iter().map(String::as_str).collect();
            match words.as_slice() {
                ["type", _, "hook", hook, "priority", priority @ ..] => found = Some((number(hook)?, place(priority)?)),
                ["policy", policy] => drops = *policy == "drop",
                _ => {}
            }
        }
        Ok(found.map(|(number, priority)| Hook { number, priority, drops }))
    }

    fn set(&mut self, map: bool) -> Result<FakeSet, Cause> {
        let (mut kinds, mut interval) = (None, false);
        for statement in self.statements()? {
            match statement.first().map(String::as_str) {
                Some("type") => kinds = Some(types(&statement[1..])?),
                Some("flags") => interval = statement.iter().any(|flag| flag == "interval"),
                _ => {}
            }
        }
        let (key, mapping) = kinds.ok_or_else(|| invalid("a set has no type that the fake knows"))?;
        if map == (mapping == Mapping::Nothing) {
            return Err(invalid("only maps have values, and all of them do"));
        }
        Ok(FakeSet { layout: Layout { key: Some(key), mapping, interval }, map, elements: BTreeMap::new() })
    }
}

/// `ifname . ipv4_addr : verdict`.
fn types(words: &[String]) -> Result<(Vec<Kind>, Mapping), Cause> {
    let text = words.join(" ");
    let (key, value) = text.split_once(':').map_or((text.as_str(), None), |(key, value)| (key, Some(value.trim())));
    let kinds = |text: &str| {
        let kind = |word: &str| {
            kind_by_word(word.trim()).ok_or_else(|| invalid(&format!("the fake does not know the type {word:?}")))
        };
        text.split(" . ").map(kind).collect::<Result<Vec<_>, _>>()
    };
    let mapping = match value {
        None => Mapping::Nothing,
        Some("verdict") => Mapping::Verdict,
        Some(value) => Mapping::Values(Some(kinds(value)?)),
    };
    Ok((kinds(key)?, mapping))
}

/// The kernel's number of a hook of the IP families.
fn number(hook: &str) -> Result<u32, Cause> {
    let hooks = ["prerouting", "input", "forward", "output", "postrouting", "ingress"];
    let number = hooks.iter().position(|known| *known == hook).and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| invalid(&format!("the fake does not know the hook {hook:?}")))
}

/// A priority: a number, or a word with perhaps something added or taken away.
fn place(words: &[&str]) -> Result<i32, Cause> {
    let unknown = || invalid(&format!("the fake does not know the priority {:?}", words.join(" ")));
    let known = [("raw", -300), ("mangle", -150), ("dstnat", -100), ("filter", 0), ("security", 50), ("srcnat", 100)];
    let base = |word: &str| {
        let named = known.iter().find(|(name, _)| *name == word).map(|(_, priority)| *priority);
        named.or_else(|| word.parse().ok()).ok_or_else(unknown)
    };
    match words {
        [word] => base(word),
        [word, sign @ ("+" | "-"), number] => {
            let number: i32 = number.parse().map_err(|_| unknown())?;
            Ok(base(word)? + if *sign == "+" { number } else { -number })
        }
        _ => Err(unknown()),
    }
}
