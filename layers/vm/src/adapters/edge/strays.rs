//! What is on this host for VMs that nobody knows, and how VMs look from here.

use std::collections::BTreeSet;

use host::network::{Data, Element, Family, LinkKind, Listed, NetworkError, Place, Repeatable, Table};
use serde_json::{Value, json};

use super::base::words;
use super::core::{Books, Core, found, id_in};
use super::error::EdgeError;
use super::inside;
use super::layout::slot_of_link;
use super::rulesets::{BRIDGE_SETS, COUNTERS, SETS};
use super::wanted;
use crate::model::{Slot, Vm, VmId};
use crate::ports::Stray;

/// Kinds of strays that are ours.
const NAMESPACE: &str = "namespace";
const LINK: &str = "link";
const RULE: &str = "rule";

fn stray(kind: &str, name: impl Into<String>) -> Stray {
    Stray { kind: kind.to_owned(), name: name.into() }
}

/// An element, and where it is.
struct Rule {
    family: Family,
    set: &'static str,
    element: Element,
}

impl Rule {
    /// As strays are named.
    fn words(&self) -> String {
        let words = words(self.set, &self.element);
        if self.family == Family::Bridge { format!("bridge {words}") } else { words }
    }
}

impl Core {
    pub(super) fn strays(&self, known: &[(VmId, Slot)]) -> Result<Vec<Stray>, EdgeError> {
        let ids: BTreeSet<&str> = known.iter().map(|(id, _)| id.as_str()).collect();
        let slots: BTreeSet<Slot> = known.iter().map(|(_, slot)| *slot).collect();
        let mut strays = Vec::new();
        for namespace in self.networks.namespaces().map_err(EdgeError::Strays)? {
            if id_in(&namespace.name).is_some_and(|id| !ids.contains(id)) {
                strays.push(stray(NAMESPACE, namespace.name));
            }
        }
        for link in self.host.links().map_err(EdgeError::Strays)? {
            let own = matches!(link.kind, LinkKind::Veth(_)).then(|| slot_of_link(&link.name)).flatten();
            if own.is_some_and(|slot| !slots.contains(&slot)) {
                strays.push(stray(LINK, link.name));
            }
        }
        if self.layout.enabled() {
            for rule in self.rules().map_err(EdgeError::Strays)? {
                let slot = wanted::slot_of(&self.layout, &rule.element.key, rule.element.data.as_ref());
                if slot.is_none_or(|slot| !slots.contains(&slot)) {
                    strays.push(stray(RULE, rule.words()));
                }
            }
        }
        Ok(strays)
    }

    /// Every element of the host's sets and maps, with the sets that the rules fill.
    fn rules(&self) -> Result<Vec<Rule>, NetworkError> {
        let mut rules = Vec::new();
        let mut add = |family, sets: &[&'static str]| -> Result<(), NetworkError> {
            for set in sets {
                let listed = self.listed(family, set)?.into_iter();
                rules.extend(listed.map(|listed| Rule { family, set, element: listed.element }));
            }
            Ok(())
        };
        add(Family::Inet, &SETS)?;
        add(Family::Inet, &COUNTERS)?;
        if self.layout.bridge.is_some() {
            add(Family::Bridge, &BRIDGE_SETS)?;
        }
        Ok(rules)
    }

    /// The elements of a set; none while there is no table.
    fn listed(&self, family: Family, set: &str) -> Result<Vec<Listed>, NetworkError> {
        let table = Table::new(family, &self.settings.table);
        Ok(found(self.host.elements(&table, set))?.unwrap_or_default())
    }

    pub(super) fn remove_stray(&self, stray: &Stray) -> Result<(), EdgeError> {
        match stray.kind.as_str() {
            NAMESPACE if id_in(&stray.name).is_some() => {
                self.networks.remove_namespace(&stray.name).or_not_there().map_err(EdgeError::Strays)?;
            }
            LINK if slot_of_link(&stray.name).is_some() => {
                self.host.remove_link(&stray.name).or_not_there().map_err(EdgeError::Strays)?;
            }
            RULE => {
                let rules = self.rules().map_err(EdgeError::Strays)?;
                let Some(rule) = rules.into_iter().find(|rule| rule.words() == stray.name) else { return Ok(()) };
                let mut books = self.books()?;
                let Books { host, bridge, .. } = &mut *books;
                let book = if rule.family == Family::Bridge { bridge.as_mut() } else { Some(host) };
                if let Some(book) = book {
                    book.strike(&*self.host, rule.set, rule.element.key).map_err(EdgeError::Strays)?;
                }
            }
            NAMESPACE | LINK => return Err(EdgeError::NoStray(format!("{} {}", stray.kind, stray.name))),
            // Another port's.
            _ => {}
        }
        Ok(())
    }

    pub(super) fn show(&self, vm: Option<&Vm>) -> Result<Value, EdgeError> {
        match vm {
            Some(vm) => self.show_vm(vm).map_err(EdgeError::Show),
            None => self.show_all(),
        }
    }

    fn show_vm(&self, vm: &Vm) -> Result<Value, NetworkError> {
        let wire = self.wire(vm);
        let of_vm = |listed: &Listed| {
            wanted::slot_of(&self.layout, &listed.element.key, listed.element.data.as_ref()) == Some(vm.slot)
        };
        let mut rules = Vec::new();
        let mut counters = serde_json::Map::new();
        let mut recent = Vec::new();
        for set in SETS.iter().chain(&COUNTERS) {
            for listed in self.listed(Family::Inet, set)?.iter().filter(|listed| of_vm(listed)) {
                if let Some((packets, bytes)) = listed.counted {
                    // Per family and set: sent, denied or spoofed.
                    let name = set.replace("own", "sent_ipv").replace("denied", "denied_ipv");
                    counters.insert(name, json!({ "packets": packets, "bytes": bytes }));
                }
                match *set {
                    "recent4" | "recent6" => recent.push(listed.element.key.to_string()),
                    set if COUNTERS.contains(&set) => {}
                    set => rules.push(described(set, &listed.element)),
                }
            }
        }
        let network = found(self.networks.open(&Place::named(&wire.namespace)))?;
        let limit = |limit: Option<host::network::Limit>| {
            limit.map(|limit| json!({ "bytes_per_second": limit.rate, "burst_bytes": limit.burst }))
        };
        let receive = found(self.host.limit(&wire.link))?.flatten();
        let (mut send, mut translation) = (None, Vec::new());
        if let Some(network) = &network {
            send = found(network.limit(inside::EDGE))?.flatten();
            translation = found(inside::translation(&**network, &self.inner))?.unwrap_or_default();
        }
        Ok(json!({
            "vm_id": vm.id,
            "wire": wire,
            "namespace_there": network.is_some(),
            "link_there": found(self.host.link(&wire.link))?.is_some(),
            "bridge": self.layout.bridge,
            "translation": translation,
            "limits": { "receive": limit(receive), "send": limit(send) },
            "mappings": vm.mappings,
            "rules": rules,
            "counters": counters,
            "recently_denied": recent,
        }))
    }

    fn show_all(&self) -> Result<Value, EdgeError> {
        let mut sets = serde_json::Map::new();
        for set in SETS.iter().chain(&COUNTERS) {
            let listed = self.listed(Family::Inet, set).map_err(EdgeError::Show)?;
            let lines: Vec<Value> = listed
                .iter()
                .map(|listed| match listed.counted {
                    Some((packets, bytes)) => {
                        json!({ "rule": described(set, &listed.element), "packets": packets, "bytes": bytes })
                    }
                    None => json!({ "rule": described(set, &listed.element) }),
                })
                .collect();
            sets.insert((*set).to_owned(), lines.into());
        }
        let foreign: Vec<String> = self.foreign()?.into_iter().map(|chain| chain.chain).collect();
        Ok(json!({
            "enabled": self.layout.enabled(),
            "table": format!("inet {}", self.settings.table),
            "bridge": self.layout.bridge,
            "ipv4": self.layout.has_ipv4().then(|| json!({ "subnet": self.layout.subnet4(), "host": self.layout.gateway4() })),
            "ipv6": self.layout.has_ipv6().then(|| json!({ "subnet": self.layout.subnet6(), "host": self.layout.gateway6() })),
            "capacity": self.layout.capacity(),
            "ports": { "first": self.settings.ports.start(), "last": self.settings.ports.end() },
            "pool": self.pool.names(),
            "sets": sets,
            "foreign_chains": foreign,
        }))
    }
}

/// An element with what a map has for it.
fn described(set: &str, element: &Element) -> String {
    match &element.data {
        Some(Data::Value(value)) => format!("{} to {value}", words(set, element)),
        _ => words(set, element),
    }
}
