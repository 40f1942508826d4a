//! Which tags are one too many. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, RepositoryName, Tag};

/// How many tags stay, counted from the one that was set last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The last so many of a repository; with 0 all stay.
    Last(usize),
    /// The last so many of each `major.minor` version; with 0 all stay, and so do tags that are no versions.
    LastPerMinor(usize),
}

/// Tags of repositories whose name is `prefix` or begins with it and a `/`. The longest prefix that fits decides; the
/// empty one fits all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRule {
    /// First parts of the name, for example `tools`.
    pub prefix: String,
    /// What stays.
    pub keep: Keep,
}

/// A tag as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) tag: Tag,
    pub(super) digest: Digest,
    /// When it was set to that: seconds since 1970, and nanoseconds.
    pub(super) at: (i64, i64),
}

/// The rule for a repository.
pub(super) fn rule_for<'a>(rules: &'a [RetentionRule], repository: &RepositoryName) -> Option<&'a RetentionRule> {
    let fits = |rule: &&RetentionRule| {
        let prefix = rule.prefix.trim_end_matches('/');
        let rest = repository.as_str().strip_prefix(prefix);
        prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    rules.iter().filter(fits).max_by_key(|rule| rule.prefix.trim_end_matches('/').len())
}

/// The tags that go, the oldest first. A tag that points to `protected` content stays, and counts like any other.
pub(super) fn excess(keep: Keep, tags: &[Tagged], protected: &[&Digest]) -> Vec<Tagged> {
    let (Keep::Last(most) | Keep::LastPerMinor(most)) = keep;
    if most == 0 {
        return Vec::new();
    }
    let group_of = |tag: &Tag| if matches!(keep, Keep::Last(_)) { Some((0, 0)) } else { minor_of(tag) };
    let mut newest: Vec<&Tagged> = tags.iter().collect();
    newest.sort_by(|a, b| (b.at, &b.tag).cmp(&(a.at, &a.tag)));
    let mut counts: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    let mut excess = Vec::new();
    for tagged in newest {
        let Some(group) = group_of(&tagged.tag) else { continue };
        let count = counts.entry(group).or_default();
        *count += 1;
        if *count > most && !protected.contains(&&tagged.digest) {
            excess.push(tagged.clone());
        }
    }
    excess.reverse();
    excess
}

/// `13.1`, `v1.2.3` and `1.2-rc1` have a major and a minor version; `latest` and `13` do not.
fn minor_of(tag: &Tag) -> Option<(u64, u64)> {
    let text = tag.as_str();
    let (major, rest) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (minor, rest) = rest.split_at(digits);
    let ends_well = rest.is_empty() || rest.starts_with(['.', '-', '_']);
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if ends_well && is_number(major) { Some((major.parse().ok()?, minor.parse().ok()?)) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tagged(tag: &str, at: i64) -> Tagged {
        Tagged { tag: tag.parse().unwrap(), digest: Digest::sha256_of(tag.as_bytes()), at: (at, 0) }
    }

    fn goes(keep: Keep, tags: &[&str], protected: &[&str]) -> Vec<String> {
        let tags: Vec<Tagged> = tags.iter().zip(0..).map(|(tag, at)| tagged(tag, at)).collect();
        let protected: Vec<Digest> = protected.iter().map(|tag| Digest::sha256_of(tag.as_bytes())).collect();
        let excess = excess(keep, &tags, &protected.iter().collect::<Vec<_>>());
        excess.iter().map(|tagged| tagged.tag.to_string()).collect()
    }

    #[test]
    fn the_last_ones_by_time_stay() {
        assert_eq!(goes(Keep::Last(2), &["9", "1", "latest", "3"], &[]), ["9", "1"]);
        assert_eq!(goes(Keep::Last(2), &["9", "1", "latest", "3"], &["9"]), ["1"]);
        assert!(goes(Keep::Last(4), &["9", "1", "latest", "3"], &[]).is_empty());
        assert!(goes(Keep::Last(0), &["9", "1"], &[]).is_empty());
    }

    #[test]
    fn each_minor_version_keeps_its_own() {
        let tags = ["1.0.0", "v1.0.1", "1.0.2-rc1", "1.1", "latest", "13", "1.1.9", "1.10.0", "1.x", "1.0b"];
        assert_eq!(goes(Keep::LastPerMinor(1), &tags, &[]), ["1.0.0", "v1.0.1", "1.1"]);
        assert_eq!(goes(Keep::LastPerMinor(2), &tags, &[]), ["1.0.0"]);
        assert!(goes(Keep::LastPerMinor(0), &tags, &[]).is_empty());
    }

    #[test]
    fn the_longest_prefix_decides() {
        let rule = |prefix: &str, most| RetentionRule { prefix: prefix.to_owned(), keep: Keep::Last(most) };
        let rules = [rule("tools", 5), rule("tools/old/", 1), rule("maintenance", 3)];
        let keep = |name: &str| rule_for(&rules, &name.parse().unwrap()).map(|rule| rule.keep);
        assert_eq!(keep("tools"), Some(Keep::Last(5)));
        assert_eq!(keep("tools/parted"), Some(Keep::Last(5)));
        assert_eq!(keep("tools/old/parted"), Some(Keep::Last(1)));
        assert_eq!(keep("toolsmith"), None);
        assert_eq!(keep("os-images/debian"), None);
        assert_eq!(rule_for(&[rule("", 7)], &"a".parse().unwrap()).unwrap().keep, Keep::Last(7));
    }

    proptest! {
        #[test]
        fn no_more_go_than_are_too_many(times in prop::collection::vec(0..5i64, 0..12), most in 1..6usize) {
            let tags: Vec<Tagged> = times.iter().enumerate().map(|(n, at)| tagged(&format!("1.{n}"), *at)).collect();
            let gone = excess(Keep::Last(most), &tags, &[]);
            prop_assert_eq!(gone.len(), tags.len().saturating_sub(most));
            let stays = |tagged: &&Tagged| !gone.contains(tagged);
            let oldest = tags.iter().filter(stays).map(|tagged| tagged.at).min();
            prop_assert!(gone.iter().all(|tagged| Some(tagged.at) <= oldest));
            prop_assert!(excess(Keep::LastPerMinor(most), &tags, &[]).is_empty());
        }
    }
}
