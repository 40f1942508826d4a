//! What all VMs share on the host: forwarding, the host's own address among them, and the packet filter's tables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use host::network::{Change, Element, Key, LinkKind, Network, NetworkError, Part, Repeatable, Table};
use ipnet::IpNet;

use super::layout::{Layout, slot_of_link};
use super::rulesets::{COUNTERS, Ruleset};
use super::wanted::{self, Elements};
use crate::model::{Mapping, Slot};

/// A table and what this process knows to be in its sets. Each change is one transaction, so the two never differ but
/// by the hand of others; [`Book::open`] looks again.
#[derive(Debug)]
pub(super) struct Book {
    ruleset: Ruleset,
    sets: &'static [&'static str],
    known: BTreeMap<Slot, Elements>,
}

impl Book {
    pub(super) fn new(ruleset: Ruleset, sets: &'static [&'static str]) -> Self {
        Self { ruleset, sets, known: BTreeMap::new() }
    }

    pub(super) fn table(&self) -> &Table {
        &self.ruleset.table
    }

    /// Loads the table unless it is there, and puts into it what VMs had there before.
    pub(super) fn open(&mut self, host: &dyn Network, layout: &Layout) -> Result<(), NetworkError> {
        let current = match host.table(self.table()) {
            Ok(objects) => {
                for (slot, elements) in self.listed(host, layout)? {
                    self.known.entry(slot).or_default().extend(elements);
                }
                self.ruleset.is(&objects)
            }
            Err(error) if error.is_not_there() => false,
            Err(error) => return Err(error),
        };
        if !current {
            host.load_ruleset(&self.ruleset.text)?;
            tracing::info!(table = %self.table(), "packet filter loaded");
        }
        self.complete(host, layout)
    }

    /// Adds what is known and not there.
    fn complete(&self, host: &dyn Network, layout: &Layout) -> Result<(), NetworkError> {
        let there: Elements = self.listed(host, layout)?.into_values().flatten().collect();
        let wanted: Elements =
            self.known.values().flatten().map(|(place, data)| (place.clone(), data.clone())).collect();
        self.change(host, &wanted::changes(&there, &wanted))
    }

    /// What is in the sets now, by slot. Elements that belong to none are left out.
    pub(super) fn listed(&self, host: &dyn Network, layout: &Layout) -> Result<BTreeMap<Slot, Elements>, NetworkError> {
        let mut found: BTreeMap<Slot, Elements> = BTreeMap::new();
        for set in self.sets {
            let listed = match host.elements(self.table(), set) {
                Ok(listed) => listed,
                // An older ruleset without it.
                Err(error) if error.is_not_there() => continue,
                Err(error) => return Err(error),
            };
            for (place, data) in listed.into_iter().filter_map(|one| wanted::listed(self.sets, set, one)) {
                if let Some(slot) = wanted::slot_of(layout, &place.1, data.as_ref()) {
                    found.entry(slot).or_default().insert(place, data);
                }
            }
        }
        Ok(found)
    }

    /// The slot to which a port of the host leads.
    pub(super) fn published_by(&self, mapping: &Mapping) -> Option<Slot> {
        let key = wanted::published(mapping);
        let ours = |elements: &Elements| elements.keys().any(|(set, one)| set.starts_with("ports") && *one == key);
        self.known.iter().find(|(_, elements)| ours(elements)).map(|(slot, _)| *slot)
    }

    /// Lets a slot have these elements and no others. Returns whether something was taken away.
    pub(super) fn set(
        &mut self,
        host: &dyn Network,
        layout: &Layout,
        slot: Slot,
        wanted: Elements,
    ) -> Result<bool, NetworkError> {
        let there = self.known.get(&slot).cloned().unwrap_or_default();
        let changes = wanted::changes(&there, &wanted);
        let taken = changes.iter().any(|change| matches!(change, Change::Remove { .. }));
        match self.change(host, &changes) {
            Err(error) if error.is_not_there() => {
                tracing::warn!(table = %self.table(), "somebody removed the packet filter's table; it is made again");
                self.open(host, layout)?;
                self.change(host, &changes)?;
            }
            other => other?,
        }
        if wanted.is_empty() {
            self.known.remove(&slot);
        } else {
            self.known.insert(slot, wanted);
        }
        Ok(taken)
    }

    fn change(&self, host: &dyn Network, changes: &[Change]) -> Result<(), NetworkError> {
        if changes.is_empty() { Ok(()) } else { host.change_elements(self.table(), changes) }
    }

    /// Forgets what the rules counted for an address or a link.
    pub(super) fn forget_counts(&self, host: &dyn Network, about: &[Part]) -> Result<(), NetworkError> {
        let mut changes = Vec::new();
        for set in COUNTERS {
            let there = match host.elements(self.table(), set) {
                Err(error) if error.is_not_there() => continue,
                there => there?,
            };
            let ours =
                there.into_iter().filter(|one| one.element.key.0.first().is_some_and(|part| about.contains(part)));
            changes.extend(ours.map(|one| Change::remove(set, one.element.key)));
        }
        self.change(host, &changes)
    }

    /// Removes one element, whoever it belongs to.
    pub(super) fn strike(&mut self, host: &dyn Network, set: &str, key: Key) -> Result<(), NetworkError> {
        for elements in self.known.values_mut() {
            elements.retain(|(known, one), _| *known != set || *one != key);
        }
        self.change(host, &[Change::remove(set, key)])
    }
}

/// An element in words, as strays are named.
pub(super) fn words(set: &str, element: &Element) -> String {
    format!("{set} {}", element.key)
}

/// Lets the host forward, and keeps what it does with router advertisements as it is.
pub(super) fn forward(host: &dyn Network, layout: &Layout) -> Result<(), NetworkError> {
    if layout.has_ipv4() && host.sysctl("ipv4/ip_forward")? != "1" {
        host.set_sysctl("ipv4/ip_forward", "1")?;
        tracing::info!("IPv4 forwarding switched on");
    }
    if !layout.has_ipv6() || host.sysctl("ipv6/conf/all/forwarding")? == "1" {
        return Ok(());
    }
    // A host that forwards takes no router advertisements, unless it is told to take them nevertheless.
    for link in host.links()? {
        let own = slot_of_link(&link.name).is_some() || link.name == "lo";
        if own || matches!(link.kind, LinkKind::Tap { .. }) {
            continue;
        }
        let setting = |key: &str| match host.sysctl(&format!("ipv6/conf/{}/{key}", link.name)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_not_there() => Ok(None),
            Err(error) => Err(error),
        };
        if setting("accept_ra")?.as_deref() == Some("1") && setting("forwarding")?.as_deref() == Some("0") {
            host.set_sysctl(&format!("ipv6/conf/{}/accept_ra", link.name), "2").or_not_there()?;
            tracing::info!(link = %link.name, "router advertisements are taken on although the host forwards (accept_ra=2)");
        }
    }
    host.set_sysctl("ipv6/conf/all/forwarding", "1")?;
    tracing::info!("IPv6 forwarding switched on");
    Ok(())
}

/// Gives the host its own address among those of VMs: their gateway, and whom they see when the host asks them.
pub(super) fn own_addresses(host: &dyn Network, layout: &Layout) -> Result<(), NetworkError> {
    if layout.bridge.is_some() {
        return Ok(());
    }
    let four = layout.has_ipv4().then(|| IpAddr::V4(layout.gateway4()));
    let six = layout.has_ipv6().then(|| IpAddr::V6(layout.gateway6()));
    let own: Vec<IpNet> = four.into_iter().chain(six).map(IpNet::from).collect();
    host.add_addresses("lo", &own).or_already_there()?;
    Ok(())
}
