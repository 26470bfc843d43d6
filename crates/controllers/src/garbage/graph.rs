//! Who owns whom. Pure: observations in, wishes for a look out.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use client::Key;

/// A watched kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KindId(pub(super) u32);

/// An object's UID in 16 bytes: there are as many of these as there are objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Uid(u128);

impl Uid {
    pub(super) fn of(text: &str) -> Self {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let hex = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        Self(hex.unwrap_or_else(|| {
            // Nothing says that a UID is a UUID.
            let half = |salt: u8| {
                let mut hasher = DefaultHasher::new();
                (salt, text).hash(&mut hasher);
                u128::from(hasher.finish())
            };
            (half(0) << 64) | half(1)
        }))
    }
}

/// An object as last seen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observed {
    pub(super) uid: Uid,
    pub(super) uid_text: Box<str>,
    pub(super) kind: KindId,
    pub(super) key: Key,
    /// With whether the owner must wait for the object when it is deleted in the foreground.
    pub(super) owners: Vec<(Uid, bool)>,
    /// It is being deleted, and waits for its dependents.
    pub(super) foreground: bool,
    /// It is being deleted, and its dependents are to be let go.
    pub(super) orphan: bool,
}

/// A wish for a look at an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wake {
    /// It may have to go, or may be free to.
    Collect(Uid),
    /// Its dependents are to be let go.
    Orphan(Uid),
}

impl Wake {
    /// Queues hold keys, so a wish is written as one.
    pub(super) fn key(self) -> Key {
        match self {
            Self::Collect(uid) => Key::new("collect", &format!("{:032x}", uid.0)),
            Self::Orphan(uid) => Key::new("orphan", &format!("{:032x}", uid.0)),
        }
    }

    pub(super) fn of(key: &Key) -> Option<Self> {
        let uid = Uid(u128::from_str_radix(key.name(), 16).ok()?);
        match key.namespace() {
            "collect" => Some(Self::Collect(uid)),
            "orphan" => Some(Self::Orphan(uid)),
            _ => None,
        }
    }
}

/// What is kept of every object: as little as can be, for they are many.
#[derive(Clone, Copy, Debug)]
struct Known {
    kind: KindId,
    /// Its namespace, as a number.
    place: u32,
}

/// Where objects without a namespace are.
const EVERYWHERE: u32 = 0;

fn place(namespace: &str) -> u32 {
    if namespace.is_empty() {
        return EVERYWHERE;
    }
    let mut hasher = DefaultHasher::new();
    namespace.hash(&mut hasher);
    (hasher.finish() as u32).max(1)
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Every object there is.
    known: HashMap<Uid, Known>,
    /// The objects about which more must be known: they have owners, or are on their way out.
    nodes: HashMap<Uid, Observed>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    /// An object is there, or has changed.
    pub(super) fn observe(&mut self, object: Observed) -> Vec<Wake> {
        let uid = object.uid;
        let here = place(object.key.namespace());
        self.known.insert(uid, Known { kind: object.kind, place: here });
        let old = self.nodes.remove(&uid);
        let (had, was_foreground, was_orphan) =
            old.map_or((Vec::new(), false, false), |old| (old.owners, old.foreground, old.orphan));
        let mut wakes = Vec::new();
        let owners: Vec<Uid> = object.owners.iter().map(|(owner, _)| *owner).collect();
        for (owner, blocked) in had {
            if !owners.contains(&owner) {
                self.unlink(owner, uid);
            }
            // An owner that waits may wait no longer.
            let blocks = object.owners.contains(&(owner, true));
            if blocked && !blocks && self.is_foreground(owner) {
                wakes.push(Wake::Collect(owner));
            }
        }
        let mut look = false;
        for owner in &owners {
            self.dependents.entry(*owner).or_default().insert(uid);
            // One in another namespace is no owner.
            let may_own = |known: &Known| known.place == EVERYWHERE || known.place == here;
            look |= !self.known.get(owner).is_some_and(may_own) || self.is_foreground(*owner);
        }
        if look {
            wakes.push(Wake::Collect(uid));
        }
        if object.orphan && !was_orphan {
            wakes.push(Wake::Orphan(uid));
        }
        let begins = object.foreground && !was_foreground;
        if !object.owners.is_empty() || object.foreground || object.orphan {
            self.nodes.insert(uid, object);
        }
        if begins {
            wakes.extend(self.dependents_of(uid).map(Wake::Collect));
            wakes.push(Wake::Collect(uid));
        }
        wakes
    }

    /// An object is gone.
    pub(super) fn gone(&mut self, uid: Uid) -> Vec<Wake> {
        self.known.remove(&uid);
        let mut wakes: Vec<Wake> = self.dependents_of(uid).map(Wake::Collect).collect();
        if let Some(node) = self.nodes.remove(&uid) {
            for (owner, _) in node.owners {
                self.unlink(owner, uid);
                if self.is_foreground(owner) {
                    wakes.push(Wake::Collect(owner));
                }
            }
        }
        wakes
    }

    /// A new list of a kind: what is not in it is gone.
    pub(super) fn keep(&mut self, kind: KindId, listed: &HashSet<Uid>) -> Vec<Wake> {
        let gone: Vec<Uid> = self
            .known
            .iter()
            .filter(|(uid, known)| known.kind == kind && !listed.contains(uid))
            .map(|(uid, _)| *uid)
            .collect();
        gone.into_iter().flat_map(|uid| self.gone(uid)).collect()
    }

    /// A kind is no longer watched. Its objects may well be there still, so nobody is woken.
    pub(super) fn forget(&mut self, kind: KindId) {
        let of_kind = self.known.iter().filter(|(_, known)| known.kind == kind);
        let gone: Vec<Uid> = of_kind.map(|(uid, _)| *uid).collect();
        for uid in gone {
            self.known.remove(&uid);
            if let Some(node) = self.nodes.remove(&uid) {
                node.owners.iter().for_each(|(owner, _)| self.unlink(*owner, uid));
            }
        }
    }

    /// Whether there is such an object, as far as the watches tell.
    pub(super) fn knows(&self, uid: Uid) -> bool {
        self.known.contains_key(&uid)
    }

    pub(super) fn node(&self, uid: Uid) -> Option<&Observed> {
        self.nodes.get(&uid)
    }

    pub(super) fn dependents_of(&self, uid: Uid) -> impl Iterator<Item = Uid> + use<'_> {
        self.dependents.get(&uid).into_iter().flatten().copied()
    }

    /// The dependents that an owner waits for.
    pub(super) fn blocking(&self, owner: Uid) -> Vec<Observed> {
        let nodes = self.dependents_of(owner).filter_map(|uid| self.nodes.get(&uid));
        nodes.filter(|node| node.owners.contains(&(owner, true))).cloned().collect()
    }

    fn is_foreground(&self, uid: Uid) -> bool {
        self.nodes.get(&uid).is_some_and(|node| node.foreground)
    }

    fn unlink(&mut self, owner: Uid, dependent: Uid) {
        if let Some(dependents) = self.dependents.get_mut(&owner) {
            dependents.remove(&dependent);
            if dependents.is_empty() {
                self.dependents.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, owners: &[(&str, bool)]) -> Observed {
        Observed {
            uid: Uid::of(name),
            uid_text: name.into(),
            kind: KindId(1),
            key: Key::new("n", name),
            owners: owners.iter().map(|(owner, blocks)| (Uid::of(owner), *blocks)).collect(),
            foreground: false,
            orphan: false,
        }
    }

    fn collect(name: &str) -> Wake {
        Wake::Collect(Uid::of(name))
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_is_missing_or_goes() {
        let mut graph = Graph::default();
        assert_eq!(graph.observe(object("owner", &[])), []);
        assert_eq!(graph.observe(object("child", &[("owner", false)])), []);
        assert_eq!(graph.observe(object("stray", &[("nobody", false)])), [collect("stray")]);
        assert_eq!(graph.gone(Uid::of("owner")), [collect("child")]);
        assert_eq!(graph.keep(KindId(1), &HashSet::from([Uid::of("child")])), []);
        graph.gone(Uid::of("child"));
        assert!(graph.known.is_empty() && graph.nodes.is_empty() && graph.dependents.is_empty());
    }

    #[test]
    fn an_owner_elsewhere_is_looked_into() {
        let mut graph = Graph::default();
        graph.observe(object("owner", &[]));
        graph.observe(Observed { key: Key::new("", "of all"), ..object("of all", &[]) });
        let elsewhere = |owner: &str| Observed { key: Key::new("m", "c"), ..object("c", &[(owner, false)]) };
        assert_eq!(graph.observe(elsewhere("owner")), [collect("c")]);
        assert_eq!(graph.observe(elsewhere("of all")), []);
    }

    #[test]
    fn an_owner_in_the_foreground_waits_for_those_that_block_it() {
        let mut graph = Graph::default();
        graph.observe(object("owner", &[]));
        graph.observe(object("a", &[("owner", true)]));
        graph.observe(object("b", &[("owner", false)]));
        let wakes = graph.observe(Observed { foreground: true, ..object("owner", &[]) });
        assert_eq!(wakes.len(), 3);
        assert_eq!(wakes.last(), Some(&collect("owner")));
        assert_eq!(graph.blocking(Uid::of("owner")).len(), 1);
        assert_eq!(graph.gone(Uid::of("b")), [collect("owner")]);
        assert_eq!(graph.observe(object("a", &[])), [collect("owner")], "it no longer blocks");
    }

    #[test]
    fn wishes_survive_the_queue() {
        for wake in [collect("x"), Wake::Orphan(Uid::of("b7a6c3c2-9f6e-4c2b-8d0f-0a1b2c3d4e5f"))] {
            assert_eq!(Wake::of(&wake.key()), Some(wake));
        }
    }
}
