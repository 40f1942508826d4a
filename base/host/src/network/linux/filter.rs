//! The packet filter: `nft` for whole rulesets, nf_tables by netlink for everything else.

use std::collections::BTreeMap;

use super::super::error::{Cause, NetworkError};
use super::super::filter::{Chain, Change, Element, Family, Filter, Hook, Listed, Set, Table, TableObjects};
use super::super::foreign::{self, ForeignChain};
use super::super::layout::{Layout, Mapping, kinds_by_number};
use super::netlink::{Attributes, Message, Reply};
use super::numbers::*;
use super::{LinuxNetwork, elements, within};
use crate::linux::Linux;
use crate::process::{Command, Output, ProcessError, Processes};

/// How many elements one message adds: its list must stay below 64 KiB.
const TOGETHER: usize = 128;
/// How often a transaction is tried again without the removals that had nothing to remove.
const ATTEMPTS: u32 = 4;

fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Arp => 3,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

fn message(kind: u8, flags: u16, family: u8) -> Message {
    let kind = u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, kind]);
    Message::new(kind, NLM_F_REQUEST | flags, &[family, 0, 0, 0])
}

/// A message about the elements of a set, which `fill` lists.
fn about_elements(
    kind: u8,
    flags: u16,
    table: &Table,
    set: &str,
    fill: impl FnOnce(&mut Message) -> &mut Message,
) -> Message {
    let mut message = message(kind, flags, number(table.family));
    message.text(NFTA_SET_ELEM_LIST_TABLE, &table.name).text(NFTA_SET_ELEM_LIST_SET, set);
    message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, fill);
    message
}

/// A message and the changes it does, by their place in the list.
struct Step {
    message: Message,
    changes: Vec<usize>,
    removal: bool,
}

impl LinuxNetwork {
    fn nft(&self, command: &Command) -> Result<Output, Cause> {
        within(self.handle.as_ref(), || Linux.run(command))?.map_err(|error| {
            if error.is_missing() { Cause::Missing("the program nft".to_owned()) } else { Cause::Program(error) }
        })
    }

    fn layout(&self, table: &Table, set: &str) -> Result<Layout, Cause> {
        let mut message = message(NFT_MSG_GETSET, NLM_F_ACK, number(table.family));
        message.text(NFTA_SET_TABLE, &table.name).text(NFTA_SET_NAME, set);
        let reply = self.netfilter()?.get(message)?;
        let attributes = Attributes::from(&reply);
        let flags = attributes.u32_be(NFTA_SET_FLAGS).unwrap_or_default();
        let mapping = match attributes.u32_be(NFTA_SET_DATA_TYPE) {
            Some(NFT_DATA_VERDICT) => Mapping::Verdict,
            Some(kind) if flags & NFT_SET_MAP != 0 => Mapping::Values(kinds_by_number(kind)),
            _ => Mapping::Nothing,
        };
        let key = kinds_by_number(attributes.u32_be(NFTA_SET_KEY_TYPE).unwrap_or_default());
        Ok(Layout { key, mapping, interval: flags & NFT_SET_INTERVAL != 0 })
    }

    /// The messages of a transaction. An error comes with the change that it is about.
    fn steps(&self, table: &Table, changes: &[Change]) -> Result<Vec<Step>, (usize, Cause)> {
        let mut layouts = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            if !layouts.contains_key(change.set()) {
                layouts.insert(change.set(), self.layout(table, change.set()).map_err(|cause| (at, cause))?);
            }
        }
        let mut steps = Vec::new();
        let mut at = 0;
        while let Some(change) = changes.get(at) {
            let layout = &layouts[change.set()];
            let alike = |next: &&Change| matches!(next, Change::Add { set, .. } if set == change.set());
            let count = changes[at..].iter().take_while(alike).take(TOGETHER).count().max(1);
            steps.push(step(table, layout, at, &changes[at..at + count])?);
            at += count;
        }
        Ok(steps)
    }

    fn change_all(&self, table: &Table, changes: &[Change]) -> Result<(), (usize, Cause)> {
        let mut steps = self.steps(table, changes)?;
        for _ in 0..ATTEMPTS {
            if steps.is_empty() {
                return Ok(());
            }
            let messages = steps.iter().map(|step| step.message.clone()).collect();
            let connection = self.netfilter().map_err(|cause| (0, cause))?;
            let Err(refusals) = connection.transaction(messages) else { return Ok(()) };
            let mut absent = Vec::new();
            for refusal in refusals {
                let index = refusal.index;
                let place = steps.get(index).and_then(|step| step.changes.first().copied()).unwrap_or_default();
                match Cause::from(refusal) {
                    Cause::NotThere if steps.get(index).is_some_and(|step| step.removal) => absent.push(index),
                    cause => return Err((place, cause)),
                }
            }
            let mut at = 0..;
            steps.retain(|_| at.next().is_some_and(|at| !absent.contains(&at)));
        }
        Err((0, Cause::Invalid("the set changed each time it was looked at".to_owned())))
    }

    fn list_elements(&self, table: &Table, set: &str) -> Result<Vec<Listed>, Cause> {
        let layout = self.layout(table, set)?;
        let mut message = message(NFT_MSG_GETSETELEM, NLM_F_DUMP, number(table.family));
        message.text(NFTA_SET_ELEM_LIST_TABLE, &table.name).text(NFTA_SET_ELEM_LIST_SET, set);
        let replies = self.netfilter()?.list(&message)?;
        let listed = |reply: &Reply| {
            let list = Attributes::from(reply).inside(NFTA_SET_ELEM_LIST_ELEMENTS);
            list.into_iter().filter_map(|(_, one)| elements::entry(&layout, Attributes(one))).collect::<Vec<_>>()
        };
        Ok(elements::joined(&layout, replies.iter().flat_map(listed).collect()))
    }

    fn all_of(&self, kind: u8, family: u8) -> Result<Vec<Reply>, Cause> {
        Ok(self.netfilter()?.list(&message(kind, NLM_F_DUMP, family))?)
    }

    fn list_tables(&self) -> Result<Vec<Table>, Cause> {
        let replies = self.all_of(NFT_MSG_GETTABLE, AF_UNSPEC)?;
        let table = |reply: &Reply| {
            let family = reply.payload.first()?;
            let family = Family::ALL.into_iter().find(|known| number(*known) == *family)?;
            Some(Table::new(family, Attributes::from(reply).text(NFTA_TABLE_NAME)?))
        };
        Ok(replies.iter().filter_map(table).collect())
    }

    fn objects(&self, table: &Table) -> Result<TableObjects, Cause> {
        let family = number(table.family);
        let mut present = message(NFT_MSG_GETTABLE, NLM_F_ACK, family);
        present.text(NFTA_TABLE_NAME, &table.name);
        self.netfilter()?.get(present)?;
        let chains = self.all_of(NFT_MSG_GETCHAIN, family)?;
        let sets = self.all_of(NFT_MSG_GETSET, family)?;
        let ours = |attributes: Attributes<'_>, kind| attributes.text(kind).as_ref() == Some(&table.name);
        Ok(TableObjects {
            chains: chains
                .iter()
                .map(Attributes::from)
                .filter(|chain| ours(*chain, NFTA_CHAIN_TABLE))
                .filter_map(chain_in)
                .collect(),
            sets: sets
                .iter()
                .map(Attributes::from)
                .filter(|set| ours(*set, NFTA_SET_TABLE))
                .filter_map(set_in)
                .collect(),
        })
    }

    fn foreign(&self, ours: &[Table]) -> Result<Vec<ForeignChain>, Cause> {
        let list = || Command::new("nft").arg("-j");
        let output = match self.nft(&list().args(["list", "ruleset"])) {
            // Without the elements of sets; what a named verdict map says is then not seen.
            Err(Cause::Program(ProcessError::TooMuchOutput { .. })) => {
                self.nft(&list().args(["-t", "list", "ruleset"]))
            }
            output => output,
        }?;
        let ruleset = serde_json::from_slice(&output.stdout)
            .map_err(|error| Cause::Invalid(format!("nft did not answer in JSON: {error}")))?;
        Ok(foreign::foreign_chains(&ruleset, ours))
    }
}

/// One message for changes that are alike: additions to one set, or one removal.
fn step(table: &Table, layout: &Layout, at: usize, changes: &[Change]) -> Result<Step, (usize, Cause)> {
    let mut prepared = Vec::new();
    for (more, change) in changes.iter().enumerate() {
        let failed = |cause| (at + more, cause);
        prepared.push(match change {
            Change::Add { element, .. } => {
                let value = layout.value(element).map_err(failed)?;
                (layout.span(&element.key).map_err(failed)?, Some((element, value)))
            }
            Change::Remove { key, .. } => (layout.span(key).map_err(failed)?, None::<(&Element, _)>),
        });
    }
    let removal = matches!(changes, [Change::Remove { .. }]);
    let (kind, flags) = if removal { (NFT_MSG_DELSETELEM, 0) } else { (NFT_MSG_NEWSETELEM, NLM_F_CREATE) };
    let set = changes.first().map_or("", Change::set);
    let message = about_elements(kind, flags, table, set, |list| {
        for (span, data) in prepared {
            elements::push(list, layout, &span, data);
        }
        list
    });
    Ok(Step { message, changes: (at..at + changes.len()).collect(), removal })
}

fn chain_in(attributes: Attributes<'_>) -> Option<Chain> {
    let hook = attributes.inside(NFTA_CHAIN_HOOK);
    let hook = hook.u32_be(NFTA_HOOK_HOOKNUM).map(|number| Hook {
        number,
        priority: hook.u32_be(NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed(),
        drops: attributes.u32_be(NFTA_CHAIN_POLICY) == Some(NF_DROP.cast_unsigned()),
    });
    Some(Chain { name: attributes.text(NFTA_CHAIN_NAME)?, hook })
}

fn set_in(attributes: Attributes<'_>) -> Option<Set> {
    let flags = attributes.u32_be(NFTA_SET_FLAGS).unwrap_or_default();
    let named = flags & NFT_SET_ANONYMOUS == 0;
    let set = Set { name: attributes.text(NFTA_SET_NAME)?, map: flags & NFT_SET_MAP != 0 };
    named.then_some(set)
}

impl Filter for LinuxNetwork {
    fn load_ruleset(&self, ruleset: &str) -> Result<(), NetworkError> {
        let command = Command::new("nft").args(["-f", "-"]).input(ruleset);
        self.nft(&command).map(|_| ()).map_err(self.at("load", "the ruleset"))
    }

    fn change_elements(&self, table: &Table, changes: &[Change]) -> Result<(), NetworkError> {
        self.change_all(table, changes).map_err(|(at, cause)| {
            let whole = || ("change".to_owned(), table.to_string());
            let (operation, object) = changes.get(at).map_or_else(whole, |change| change.words(table));
            self.at(&operation, &object)(cause)
        })
    }

    fn elements(&self, table: &Table, set: &str) -> Result<Vec<Listed>, NetworkError> {
        self.list_elements(table, set).map_err(self.at("list", &format!("set {set} of {table}")))
    }

    fn tables(&self) -> Result<Vec<Table>, NetworkError> {
        self.list_tables().map_err(self.at("list", "the tables"))
    }

    fn table(&self, table: &Table) -> Result<TableObjects, NetworkError> {
        self.objects(table).map_err(self.at("look at", &table.to_string()))
    }

    fn foreign_chains(&self, ours: &[Table]) -> Result<Vec<ForeignChain>, NetworkError> {
        self.foreign(ours).map_err(self.at("list", "the chains of others"))
    }
}
