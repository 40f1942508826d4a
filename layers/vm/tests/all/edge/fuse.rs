//! Networks that kill their process before a certain change is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use host::network::{
    Addresses, Change, Filter, ForeignChain, Limit, Link, LinkChange, Links, Listed, Namespace, Neighbour, Network,
    NetworkError, Networks, NewLink, Place, Route, Table, TableObjects, Traffic,
};
use ipnet::IpNet;

/// How many changes may still be made; below 0 for any number.
#[derive(Debug, Clone)]
pub(super) struct Fuse(Arc<AtomicI64>);

impl Fuse {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(-1)))
    }

    /// From now on only so many.
    pub(super) fn light(&self, changes: i64) {
        self.0.store(changes, Ordering::SeqCst);
    }

    fn burn(&self) {
        if self.0.load(Ordering::SeqCst) >= 0 && self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            let own = rustix::process::getpid();
            let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
            // The signal comes at once, but perhaps to another thread first.
            loop {
                std::thread::park();
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Fused<T>(pub(super) T, pub(super) Fuse);

macro_rules! pass_on {
    ($trait:ident for $type:ty { $(changes $change:ident($($one:ident: $one_type:ty),*) -> $changed:ty;)*
     $(looks $look:ident($($other:ident: $other_type:ty),*) -> $seen:ty;)* }) => {
        impl $trait for $type {
            $(fn $change(&self, $($one: $one_type),*) -> $changed {
                self.1.burn();
                self.0.$change($($one),*)
            })*
            $(fn $look(&self, $($other: $other_type),*) -> $seen {
                self.0.$look($($other),*)
            })*
        }
    };
}

type Done<T = ()> = Result<T, NetworkError>;

impl<N: Networks> Networks for Fused<N> {
    fn create_namespace(&self, name: &str) -> Done {
        self.1.burn();
        self.0.create_namespace(name)
    }

    fn remove_namespace(&self, name: &str) -> Done {
        self.1.burn();
        self.0.remove_namespace(name)
    }

    fn rename_namespace(&self, from: &str, to: &str) -> Done {
        self.1.burn();
        // As it is done: both names first.
        self.0.name_namespace(&Place::named(from), to)?;
        self.1.burn();
        self.0.remove_namespace(from)
    }

    fn name_namespace(&self, place: &Place, name: &str) -> Done {
        self.1.burn();
        self.0.name_namespace(place, name)
    }

    fn namespaces(&self) -> Done<Vec<Namespace>> {
        self.0.namespaces()
    }

    fn namespace_path(&self, name: &str) -> PathBuf {
        self.0.namespace_path(name)
    }

    fn open(&self, place: &Place) -> Done<Box<dyn Network>> {
        Ok(Box::new(Fused(self.0.open(place)?, self.1.clone())))
    }
}

type Within = Fused<Box<dyn Network>>;

pass_on!(Links for Within {
    changes add_link(link: &NewLink) -> Done;
    changes change_link(name: &str, change: &LinkChange) -> Done;
    changes remove_link(name: &str) -> Done;
    looks link(name: &str) -> Done<Link>;
    looks links() -> Done<Vec<Link>>;
    looks namespace_id(other: &Place) -> Done<Option<i32>>;
});

pass_on!(Addresses for Within {
    changes add_addresses(link: &str, addresses: &[IpNet]) -> Done;
    changes remove_addresses(link: &str, addresses: &[IpNet]) -> Done;
    changes add_routes(routes: &[Route]) -> Done;
    changes remove_routes(routes: &[Route]) -> Done;
    changes add_neighbours(neighbours: &[Neighbour]) -> Done;
    changes remove_neighbours(neighbours: &[Neighbour]) -> Done;
    looks addresses(link: &str) -> Done<Vec<IpNet>>;
    looks routes() -> Done<Vec<Route>>;
    looks neighbours() -> Done<Vec<Neighbour>>;
});

pass_on!(Filter for Within {
    changes load_ruleset(ruleset: &str) -> Done;
    changes change_elements(table: &Table, changes: &[Change]) -> Done;
    looks elements(table: &Table, set: &str) -> Done<Vec<Listed>>;
    looks tables() -> Done<Vec<Table>>;
    looks table(table: &Table) -> Done<TableObjects>;
    looks foreign_chains(ours: &[Table]) -> Done<Vec<ForeignChain>>;
});

pass_on!(Traffic for Within {
    changes set_limit(link: &str, limit: &Limit) -> Done;
    changes remove_limit(link: &str) -> Done;
    changes forget_connections(addresses: &[std::net::IpAddr]) -> Done<usize>;
    looks limit(link: &str) -> Done<Option<Limit>>;
});

pass_on!(Network for Within {
    changes set_sysctl(key: &str, value: &str) -> Done;
    looks place() -> &Place;
    looks inside(work: &mut (dyn FnMut() + Send)) -> Done;
    looks sysctl(key: &str) -> Done<String>;
});
