//! What of a repository goes. Pure.
//!
//! ```text
//! roots:    tags, what is in use, manifests younger than the grace, manifests that are meant to be pulled by digest
//! reached:  what a reached manifest names (children, configuration, layers, its subject), and every manifest whose
//!           subject is reached
//! goes:     manifests that are not reached; holds of blobs that are neither reached nor young
//! ```
//! Content that is named stays whatever its media type and wherever else it may be fetched: it costs room to keep too
//! much, and cannot be mended to keep too little.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// What becomes of manifests that no tag has ever pointed to and no index has listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestOnly {
    /// They stay: somebody pulls them by their digest.
    #[default]
    Keep,
    /// They go like any other that nothing reaches.
    Collect,
}

/// A manifest as it was found.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// All content that it names, whatever that is.
    pub(super) names: Vec<Digest>,
    pub(super) subject: Option<Digest>,
    pub(super) adopted: bool,
    /// Its lease runs for less than the grace.
    pub(super) young: bool,
}

/// A repository as it was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// What its tags point to.
    pub(super) tags: Vec<Digest>,
    pub(super) manifests: BTreeMap<Digest, Seen>,
    /// The blobs that it holds, and whether that is young.
    pub(super) holds: BTreeMap<Digest, bool>,
    /// Old records of referrers that the repository does not hold: the subject and the referrer.
    pub(super) widowed: Vec<(Digest, Digest)>,
}

/// What goes from a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// In stages: a manifest goes in an earlier one than what it names.
    pub(super) manifests: Vec<Vec<Going>>,
    pub(super) holds: Vec<Digest>,
    pub(super) widowed: Vec<(Digest, Digest)>,
}

/// A manifest that goes, and what it was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Going {
    pub(super) digest: Digest,
    pub(super) subject: Option<Digest>,
}

impl Snapshot {
    /// What goes while these digests are in use.
    pub(super) fn plan(&self, in_use: &[Digest], digest_only: DigestOnly) -> Plan {
        let reached = self.reached(in_use, digest_only);
        let going = self.manifests.keys().filter(|digest| !reached.contains(digest)).collect();
        let holds = self.holds.iter().filter(|(digest, young)| !**young && !reached.contains(digest));
        Plan {
            manifests: self.staged(going),
            holds: holds.map(|(digest, _)| digest.clone()).collect(),
            widowed: self.widowed.clone(),
        }
    }

    fn reached<'a>(&'a self, in_use: &'a [Digest], digest_only: DigestOnly) -> HashSet<&'a Digest> {
        let mut referrers: HashMap<&Digest, Vec<&Digest>> = HashMap::new();
        for (digest, seen) in &self.manifests {
            if let Some(subject) = &seen.subject {
                referrers.entry(subject).or_default().push(digest);
            }
        }
        let is_root = |seen: &Seen| seen.young || (digest_only == DigestOnly::Keep && self.is_digest_only(seen));
        let lasting = self.manifests.iter().filter(|(_, seen)| is_root(seen)).map(|(digest, _)| digest);
        let mut waiting: Vec<&Digest> = self.tags.iter().chain(in_use).chain(lasting).collect();
        let mut reached = HashSet::new();
        while let Some(digest) = waiting.pop() {
            if !reached.insert(digest) {
                continue;
            }
            if let Some(seen) = self.manifests.get(digest) {
                waiting.extend(seen.names.iter().chain(&seen.subject));
            }
            waiting.extend(referrers.get(digest).into_iter().flatten());
        }
        reached
    }

    /// Whether it is kept for its own sake. A signature is not, while what it is about is here: it shares that fate.
    fn is_digest_only(&self, seen: &Seen) -> bool {
        !seen.adopted && !seen.subject.as_ref().is_some_and(|subject| self.manifests.contains_key(subject))
    }

    /// Sorts so that none comes before one that names it: whatever can still be seen half-way is whole.
    fn staged(&self, mut going: HashSet<&Digest>) -> Vec<Vec<Going>> {
        let named = |digest: &Digest| self.manifests.get(digest).map(|seen| seen.names.as_slice()).unwrap_or_default();
        let mut namers: HashMap<&Digest, usize> = HashMap::new();
        for digest in &going {
            for name in named(digest).iter().filter(|name| going.contains(name)) {
                *namers.entry(name).or_default() += 1;
            }
        }
        let mut stages = Vec::new();
        while !going.is_empty() {
            let free = going.iter().filter(|digest| namers.get(**digest).is_none_or(|count| *count == 0));
            let mut stage: Vec<&Digest> = free.copied().collect();
            if stage.is_empty() {
                // A circle cannot be made with digests; were there one, nothing of it would go.
                break;
            }
            stage.sort();
            for digest in &stage {
                going.remove(digest);
                for name in named(digest) {
                    if let Some(count) = namers.get_mut(name) {
                        *count -= 1;
                    }
                }
            }
            let subject = |digest: &Digest| self.manifests.get(digest).and_then(|seen| seen.subject.clone());
            stages.push(stage.into_iter().map(|d| Going { digest: d.clone(), subject: subject(d) }).collect());
        }
        stages
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: usize) -> Digest {
        Digest::sha256_of(&number.to_le_bytes())
    }

    fn seen(names: &[usize], subject: Option<usize>) -> Seen {
        let names = names.iter().copied().map(digest).collect();
        Seen { names, subject: subject.map(digest), adopted: true, young: false }
    }

    fn snapshot(tags: &[usize], manifests: &[(usize, Seen)], holds: &[usize]) -> Snapshot {
        Snapshot {
            tags: tags.iter().copied().map(digest).collect(),
            manifests: manifests.iter().map(|(number, seen)| (digest(*number), seen.clone())).collect(),
            holds: holds.iter().map(|number| (digest(*number), false)).collect(),
            widowed: Vec::new(),
        }
    }

    fn going(plan: &Plan) -> Vec<Digest> {
        let mut all: Vec<Digest> = plan.manifests.iter().flatten().map(|going| going.digest.clone()).collect();
        all.extend(plan.holds.iter().cloned());
        all.sort();
        all
    }

    fn digests(numbers: &[usize]) -> Vec<Digest> {
        let mut all: Vec<Digest> = numbers.iter().copied().map(digest).collect();
        all.sort();
        all
    }

    /// The predecessor did not follow the children of an index, and deleted live images.
    #[test]
    fn what_an_index_lists_stays_with_it() {
        let (index, nested) = ((1, seen(&[2, 3], None)), (3, seen(&[4], None)));
        let (image, deep) = ((2, seen(&[10, 11], None)), (4, seen(&[12], None)));
        let all = snapshot(&[1], &[index, nested, image, deep], &[10, 11, 12, 13]);
        assert_eq!(going(&all.plan(&[], DigestOnly::Collect)), digests(&[13]));
    }

    #[test]
    fn an_index_goes_before_what_it_lists() {
        let all = snapshot(&[], &[(1, seen(&[2], None)), (2, seen(&[3, 9], None)), (3, seen(&[9], None))], &[9]);
        let plan = all.plan(&[], DigestOnly::Keep);
        let stages: Vec<_> = plan.manifests.iter().map(|stage| stage[0].digest.clone()).collect();
        assert_eq!(stages, [digest(1), digest(2), digest(3)]);
    }

    #[test]
    fn a_signature_shares_the_fate_of_what_it_is_about() {
        let alone = Seen { adopted: false, ..seen(&[9], Some(1)) };
        let manifests = [(1, seen(&[8], None)), (2, alone.clone()), (3, Seen { subject: Some(digest(2)), ..alone })];
        assert_eq!(going(&snapshot(&[1], &manifests, &[8, 9]).plan(&[], DigestOnly::Collect)), []);
        assert_eq!(
            going(&snapshot(&[], &manifests, &[8, 9]).plan(&[], DigestOnly::Keep)),
            digests(&[1, 2, 3, 8, 9]),
            "not kept for its own sake"
        );
        // A tag on the signature keeps what it signs.
        assert_eq!(going(&snapshot(&[3], &manifests, &[8, 9]).plan(&[], DigestOnly::Collect)), []);
        // It came before what it is about.
        assert_eq!(going(&snapshot(&[], &manifests[1..], &[9]).plan(&[], DigestOnly::Keep)), []);
        assert_eq!(going(&snapshot(&[], &manifests[1..], &[9]).plan(&[], DigestOnly::Collect)), digests(&[2, 3, 9]));
    }

    #[test]
    fn what_is_in_use_young_or_meant_for_its_digest_stays() {
        let manifests = [(1, seen(&[8], None)), (2, Seen { young: true, ..seen(&[9], None) })];
        let mut all = snapshot(&[], &manifests, &[7, 8, 9]);
        assert_eq!(going(&all.plan(&[digest(1)], DigestOnly::Collect)), digests(&[7]));
        all.holds.insert(digest(7), true);
        assert_eq!(going(&all.plan(&[], DigestOnly::Collect)), digests(&[1, 8]));
        all.manifests.get_mut(&digest(1)).unwrap().adopted = false;
        assert_eq!(going(&all.plan(&[], DigestOnly::Keep)), []);
        assert_eq!(going(&all.plan(&[], DigestOnly::Collect)), digests(&[1, 8]));
    }

    const MANIFESTS: usize = 9;

    /// Blobs have numbers from 100, what is not there from 200. A manifest names only what was there before it.
    fn repositories() -> impl Strategy<Value = (Snapshot, Vec<Digest>, DigestOnly)> {
        let manifest = (
            prop::collection::vec(prop_oneof![0..MANIFESTS, 100..106usize], 0..4),
            prop::option::weighted(0.4, prop_oneof![4 => 0..MANIFESTS, 1 => Just(200usize)]),
            any::<(bool, bool)>(),
            prop::bool::weighted(0.1),
        );
        let some = |most: usize| prop::collection::vec(0..MANIFESTS, 0..most);
        let manifests = prop::collection::vec(manifest, MANIFESTS);
        (manifests, some(3), some(2), prop::collection::vec(prop::bool::weighted(0.2), 6), any::<bool>()).prop_map(
            |(manifests, tags, in_use, young, keep)| {
                let before = |own: usize, name: &usize| *name >= 100 || *name < own;
                let manifests = manifests.into_iter().enumerate().map(|(own, (names, subject, flags, young))| {
                    let names = names.into_iter().filter(|name| before(own, name)).map(digest).collect();
                    let subject = subject.filter(|subject| before(own, subject)).map(digest);
                    (digest(own), Seen { names, subject, adopted: flags.0 && flags.1, young })
                });
                let holds = young.into_iter().enumerate().map(|(number, young)| (digest(100 + number), young));
                let snapshot = Snapshot {
                    tags: tags.into_iter().map(digest).collect(),
                    manifests: manifests.collect(),
                    holds: holds.collect(),
                    widowed: Vec::new(),
                };
                let digest_only = if keep { DigestOnly::Keep } else { DigestOnly::Collect };
                (snapshot, in_use.into_iter().map(digest).collect(), digest_only)
            },
        )
    }

    /// Reachability in the plainest way: repeated until nothing is added.
    fn closure(all: &Snapshot, in_use: &[Digest], digest_only: DigestOnly) -> Vec<Digest> {
        let mut kept: Vec<Digest> = all.tags.iter().chain(in_use).cloned().collect();
        loop {
            let count = kept.len();
            for (digest, seen) in &all.manifests {
                let subject_is_kept = seen.subject.as_ref().is_some_and(|subject| kept.contains(subject));
                let alone = seen.subject.as_ref().is_none_or(|subject| !all.manifests.contains_key(subject));
                let is_root = seen.young || (digest_only == DigestOnly::Keep && !seen.adopted && alone);
                if !kept.contains(digest) && (is_root || subject_is_kept) {
                    kept.push(digest.clone());
                }
                if kept.contains(digest) {
                    for name in seen.names.iter().chain(&seen.subject) {
                        if !kept.contains(name) {
                            kept.push(name.clone());
                        }
                    }
                }
            }
            if kept.len() == count {
                return kept;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_that_a_root_reaches_goes_and_everything_else_does((all, in_use, digest_only) in repositories()) {
            let plan = all.plan(&in_use, digest_only);
            let kept = closure(&all, &in_use, digest_only);
            let manifests = all.manifests.keys().filter(|digest| !kept.contains(digest));
            let holds = all.holds.iter().filter(|(digest, young)| !**young && !kept.contains(digest)).map(|hold| hold.0);
            let mut expected: Vec<Digest> = manifests.chain(holds).cloned().collect();
            expected.sort();
            prop_assert_eq!(going(&plan), expected);
        }

        #[test]
        fn what_can_be_seen_after_any_step_is_whole((all, in_use, digest_only) in repositories()) {
            let plan = all.plan(&in_use, digest_only);
            let mut left = all.manifests;
            for stage in &plan.manifests {
                for going in stage {
                    let namer = left.iter().find(|(_, seen)| seen.names.contains(&going.digest));
                    prop_assert!(namer.is_none(), "{} is still named", going.digest);
                    prop_assert_eq!(&left.remove(&going.digest).unwrap().subject, &going.subject);
                }
            }
            for hold in &plan.holds {
                prop_assert!(left.values().all(|seen| !seen.names.contains(hold)));
            }
        }
    }
}
