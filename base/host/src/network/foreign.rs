//! Chains of others on our hooks, read from `nft -j list ruleset`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::filter::{Family, Table};

/// A chain of another table that may drop what ours accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignChain {
    /// Its table.
    pub table: Table,
    /// Its name.
    pub chain: String,
    /// `input` or `forward`.
    pub hook: String,
    /// Lower ones are asked first.
    pub priority: i64,
    /// What it does.
    pub obstacle: Obstacle,
    /// Who made it, as far as names tell: `Docker`, `ufw`, `firewalld`, `libvirt`, `Kubernetes`, `fail2ban`.
    pub owners: Vec<&'static str>,
}

/// How a chain may be in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// What no rule of it decides on is dropped.
    Policy,
    /// A rule drops or rejects, in this chain: itself or one that it calls.
    Rule(String),
}

impl fmt::Display for ForeignChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, chain, hook, priority, .. } = self;
        write!(formatter, "chain {chain} of {table} (hook {hook}, priority {priority}")?;
        if !self.owners.is_empty() {
            write!(formatter, ", {}", self.owners.join(" and "))?;
        }
        match &self.obstacle {
            Obstacle::Policy => write!(formatter, ") drops what no rule of it accepts"),
            Obstacle::Rule(place) => write!(formatter, ") has a rule that drops, in chain {place}"),
        }
    }
}

/// Beginnings of the names of tables and chains, and who makes them.
const OWNERS: [(&str, &str); 10] = [
    ("DOCKER", "Docker"),
    ("docker", "Docker"),
    ("ufw", "ufw"),
    ("firewalld", "firewalld"),
    ("LIBVIRT", "libvirt"),
    ("libvirt", "libvirt"),
    ("KUBE", "Kubernetes"),
    ("kube-proxy", "Kubernetes"),
    ("f2b-", "fail2ban"),
    ("fail2ban", "fail2ban"),
];

/// A chain with what its rules do.
#[derive(Debug, Default)]
struct Rules {
    base: Option<(String, i64, bool)>,
    drops: bool,
    calls: BTreeSet<String>,
}

type Chains = BTreeMap<(Table, String), Rules>;

/// Chains on the hooks input and forward of tables that are not `ours` and that may drop, by table and name.
pub(super) fn foreign_chains(ruleset: &Value, ours: &[Table]) -> Vec<ForeignChain> {
    let chains = chains_in(ruleset);
    let mut found = Vec::new();
    for ((table, name), rules) in &chains {
        let Some((hook, priority, drops)) = &rules.base else { continue };
        let asked = matches!(table.family, Family::Inet | Family::Ip | Family::Ip6);
        if !asked || ours.contains(table) || !matches!(hook.as_str(), "input" | "forward") {
            continue;
        }
        let called = called_from(&chains, table, name);
        let rule =
            called.iter().find(|name| chains.get(&(table.clone(), (**name).to_owned())).is_some_and(|r| r.drops));
        let obstacle = match rule {
            _ if *drops => Obstacle::Policy,
            Some(place) => Obstacle::Rule((*place).to_owned()),
            None => continue,
        };
        let names = called.iter().copied().chain([table.name.as_str()]);
        let owners: BTreeSet<&str> = names.filter_map(owner).collect();
        found.push(ForeignChain {
            table: table.clone(),
            chain: name.clone(),
            hook: hook.clone(),
            priority: *priority,
            obstacle,
            owners: owners.into_iter().collect(),
        });
    }
    found
}

fn owner(name: &str) -> Option<&'static str> {
    OWNERS.iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, owner)| *owner)
}

fn chains_in(ruleset: &Value) -> Chains {
    let mut chains = Chains::new();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        if let Some(chain) = object.get("chain") {
            let Some(key) = place_of(chain, "name") else { continue };
            let base = chain["hook"].as_str().map(|hook| {
                let drops = chain["policy"] == "drop";
                (hook.to_owned(), chain["prio"].as_i64().unwrap_or_default(), drops)
            });
            chains.entry(key).or_default().base = base;
        } else if let Some(rule) = object.get("rule") {
            let Some(key) = place_of(rule, "chain") else { continue };
            note(&rule["expr"], chains.entry(key).or_default());
        } else if let Some(map) = object.get("map") {
            let Some((table, name)) = place_of(map, "name") else { continue };
            note(&map["elem"], chains.entry((table, format!("@{name}"))).or_default());
        }
    }
    chains
}

fn place_of(object: &Value, name: &str) -> Option<(Table, String)> {
    let family = Family::from_word(object["family"].as_str()?)?;
    Some((Table::new(family, object["table"].as_str()?), object[name].as_str()?.to_owned()))
}

/// Notes what the expressions of a rule do, wherever they stand: verdicts are also the values of maps. A named map is
/// called like a chain.
fn note(expression: &Value, rules: &mut Rules) {
    match expression {
        Value::String(name) if name.starts_with('@') => drop(rules.calls.insert(name.clone())),
        Value::Array(parts) => parts.iter().for_each(|part| note(part, rules)),
        Value::Object(parts) => {
            for (word, part) in parts {
                match word.as_str() {
                    "drop" | "reject" => rules.drops = true,
                    "jump" | "goto" => rules.calls.extend(part["target"].as_str().map(str::to_owned)),
                    // A target of iptables that nft has no word for.
                    "xt" => rules.drops |= matches!(part["name"].as_str(), Some("DROP" | "REJECT")),
                    _ => note(part, rules),
                }
            }
        }
        _ => {}
    }
}

/// A chain and all that it calls, itself first.
fn called_from<'a>(chains: &'a Chains, table: &Table, chain: &'a str) -> Vec<&'a str> {
    let mut called = vec![chain];
    let mut at = 0;
    while let Some(name) = called.get(at).copied() {
        if let Some(rules) = chains.get(&(table.clone(), name.to_owned())) {
            for next in &rules.calls {
                if !called.contains(&next.as_str()) {
                    called.push(next);
                }
            }
        }
        at += 1;
    }
    called
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chain(name: &str, hook: &str, policy: &str) -> Value {
        let (kind, prio) = ("filter", 0);
        json!({ "chain": { "family": "ip", "table": "filter", "name": name, "type": kind, "hook": hook, "prio": prio,
                           "policy": policy } })
    }

    fn rule(chain: &str, expression: &Value) -> Value {
        json!({ "rule": { "family": "ip", "table": "filter", "chain": chain, "expr": [expression] } })
    }

    #[test]
    fn only_what_may_drop_on_our_hooks_counts() {
        let ruleset = json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            chain("FORWARD", "forward", "accept"),
            rule("FORWARD", &json!({ "jump": { "target": "first" } })),
            rule("first", &json!({ "goto": { "target": "FORWARD" } })),
            chain("INPUT", "input", "accept"),
            rule("INPUT", &json!({ "xt": { "type": "target", "name": "REJECT" } })),
            chain("OUTPUT", "output", "drop"),
        ] });
        let found = foreign_chains(&ruleset, &[]);
        let names: Vec<&str> = found.iter().map(|chain| chain.chain.as_str()).collect();
        assert_eq!(names, ["INPUT"], "chains that call each other end, and FORWARD drops nothing");
        assert!(foreign_chains(&ruleset, &[Table::new(Family::Ip, "filter")]).is_empty());
        assert!(foreign_chains(&json!(null), &[]).is_empty());
    }
}
