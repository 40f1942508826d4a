//! The steps of [`super::HostEdges`], one after another on a thread that may block.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::network::{Network, NetworkError, Networks, Part, Place, Repeatable};
use ipnet::IpNet;

use super::base::{self, Book};
use super::error::EdgeError;
use super::inside::{self, Inside, TAP};
use super::layout::{Layout, NAMESPACE_PREFIX};
use super::link;
use super::pool::Pool;
use super::rulesets::{self, BRIDGE_SETS, Ruleset, SETS};
use super::settings::EdgeSettings;
use super::wanted::{self, Elements};
use crate::model::{Mapping, Protocol, Slot, Vm, VmId};
use crate::ports::{ForeignDrop, Wire};

/// Everything that the steps need.
pub(super) struct Core {
    pub(super) networks: Arc<dyn Networks>,
    pub(super) host: Box<dyn Network>,
    pub(super) settings: EdgeSettings,
    pub(super) layout: Layout,
    /// The ruleset of every namespace.
    pub(super) inner: Ruleset,
    pub(super) pool: Pool,
    books: Mutex<Books>,
}

/// The tables of the host. Nothing is changed in them before they were opened.
pub(super) struct Books {
    opened: bool,
    pub(super) host: Book,
    pub(super) bridge: Option<Book>,
}

impl Core {
    pub(super) fn new(networks: Arc<dyn Networks>, place: &Place, settings: EdgeSettings) -> Result<Self, EdgeError> {
        settings.check()?;
        let host = networks.open(place).map_err(EdgeError::Open)?;
        let layout = match &settings.bridge {
            Some(bridge) if settings.enabled => bridged(&*host, &settings, bridge)?,
            _ => Layout::routed(&settings),
        };
        let book = Book::new(rulesets::host(&settings, &layout), &SETS);
        let bridge = layout.bridge.as_ref().map(|_| Book::new(rulesets::bridge(&settings), &BRIDGE_SETS));
        let books = Mutex::new(Books { opened: false, host: book, bridge });
        let pool = Pool::new(settings.pool);
        Ok(Self { networks, host, settings, layout, inner: rulesets::namespace(), pool, books })
    }

    /// The tables, opened.
    pub(super) fn books(&self) -> Result<MutexGuard<'_, Books>, EdgeError> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if !books.opened {
            self.open_books(&mut books)?;
        }
        Ok(books)
    }

    fn open_books(&self, books: &mut Books) -> Result<(), EdgeError> {
        if self.layout.enabled() {
            let no_ipv6 = |error: NetworkError| {
                let ipv6 = error.object.contains("ipv6/");
                if ipv6 && error.is_not_there() { EdgeError::NoIpv6 } else { EdgeError::Open(error) }
            };
            base::own_addresses(&*self.host, &self.layout).map_err(EdgeError::Open)?;
            books.host.open(&*self.host, &self.layout).map_err(EdgeError::Open)?;
            if let Some(bridge) = &mut books.bridge {
                bridge.open(&*self.host, &self.layout).map_err(EdgeError::Open)?;
            }
            base::forward(&*self.host, &self.layout).map_err(no_ipv6)?;
        }
        books.opened = true;
        Ok(())
    }

    pub(super) fn open(&self) -> Result<(), EdgeError> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        self.open_books(&mut books)?;
        drop(books);
        for chain in self.foreign()? {
            tracing::warn!(chain = chain.chain, "a packet filter of others may drop what goes to and from VMs");
        }
        self.pool.adopt(&*self.networks, &self.inner).map_err(EdgeError::Open)
    }

    pub(super) fn foreign(&self) -> Result<Vec<ForeignDrop>, EdgeError> {
        if !self.layout.enabled() {
            return Ok(Vec::new());
        }
        let books = self.books()?;
        let tables: Vec<_> =
            [Some(&books.host), books.bridge.as_ref()].into_iter().flatten().map(Book::table).collect();
        let ours: Vec<_> = tables.into_iter().cloned().collect();
        drop(books);
        let chains = self.host.foreign_chains(&ours).map_err(EdgeError::Show)?;
        Ok(chains.into_iter().map(|chain| ForeignDrop { chain: chain.to_string() }).collect())
    }

    pub(super) fn wire(&self, vm: &Vm) -> Wire {
        self.layout.wire(vm, self.networks.namespace_path(&vm.id.namespace()))
    }

    pub(super) fn ensure(&self, vm: &Vm, process: Option<u32>) -> Result<Wire, EdgeError> {
        let wire = self.wire(vm);
        self.check(vm, &wire)?;
        let at = |error| EdgeError::vm(vm.slot)(error);
        let network = self.namespace(&wire, process).map_err(at)?;
        let interface = vm.spec.interface();
        let (receive, send) = wanted::limits(&interface, self.settings.rate_limit);
        let user = self.settings.first_user.saturating_add(vm.slot.0);
        let inside = Inside { layout: &self.layout, wire: &wire, slot: vm.slot, user, send };
        inside.tap(&*network).map_err(at)?;
        if self.layout.enabled() {
            let fresh = link::join(&*self.host, &*network, &self.layout, vm.slot, &wire).map_err(at)?;
            let former = inside.edge(&*network, &self.inner, fresh).map_err(at)?;
            let moved = fresh || !former.is_empty();
            link::set_limit(&*self.host, &wire.link, receive.as_ref(), fresh).map_err(at)?;
            link::route(&*self.host, &self.layout, vm.slot, &wire, &former, moved).map_err(at)?;
            self.permit(vm, &wire)?;
        }
        tracing::debug!(vm_id = %vm.id, link = wire.link, "network of the VM is there");
        Ok(wire)
    }

    /// What can be refused before anything is made.
    fn check(&self, vm: &Vm, wire: &Wire) -> Result<(), EdgeError> {
        let capacity = self.layout.capacity();
        if vm.slot.0 >= capacity {
            return Err(EdgeError::NoAddress { slot: vm.slot, capacity });
        }
        if self.layout.enabled() && wire.ipv4.is_none() && wire.ipv6.is_none() {
            return Err(EdgeError::NoFamily(if vm.spec.interface().has_ipv6() { "IPv6" } else { "IPv4" }));
        }
        let (first, last) = (*self.settings.ports.start(), *self.settings.ports.end());
        match vm.mappings.iter().find(|mapping| !self.settings.ports.contains(&mapping.host_port)) {
            Some(Mapping { host_port: port, .. }) => Err(EdgeError::PortOutside { port: *port, first, last }),
            None => Ok(()),
        }
    }

    /// The namespace of a VM, opened and with everything that does not depend on the VM.
    fn namespace(&self, wire: &Wire, process: Option<u32>) -> Result<Box<dyn Network>, NetworkError> {
        let named = Place::named(&wire.namespace);
        let mut there = found(self.networks.open(&named))?;
        let is_whole = match &there {
            Some(network) => !self.layout.enabled() || link::is_joined(&*self.host, &**network, &wire.link)?,
            None => false,
        };
        if let Some(pid) = process.filter(|_| !is_whole)
            && self.name_again(wire, pid, there.is_some())?
        {
            there = Some(self.networks.open(&named)?);
        }
        let network = match there {
            Some(network) => network,
            None => {
                if !self.pool.claim(&*self.networks, &wire.namespace)? {
                    self.networks.create_namespace(&wire.namespace).or_already_there()?;
                }
                self.networks.open(&named)?
            }
        };
        inside::prepare(&*network, &self.inner)?;
        Ok(network)
    }

    /// Gives the namespace that a VM's process is in the VM's name, if it is the VM's and has lost it. Looking into the
    /// namespace of another user's process takes CAP_SYS_PTRACE.
    fn name_again(&self, wire: &Wire, pid: u32, taken: bool) -> Result<bool, NetworkError> {
        let place = Place::Process(pid);
        let Some(lived_in) = found(self.networks.open(&place))? else { return Ok(false) };
        // Nothing but a VM's namespace has such a tap; one that is named already has the link as well.
        let is_ours = found(lived_in.link(TAP))?.is_some();
        if !is_ours || (taken && !link::is_joined(&*self.host, &*lived_in, &wire.link)?) {
            return Ok(false);
        }
        self.networks.remove_namespace(&wire.namespace).or_not_there()?;
        self.networks.name_namespace(&place, &wire.namespace)?;
        tracing::warn!(namespace = wire.namespace, "the namespace of a living VM had lost its name");
        Ok(true)
    }

    /// Lets the host's packet filter know the VM, and nothing that it may not do any more.
    fn permit(&self, vm: &Vm, wire: &Wire) -> Result<(), EdgeError> {
        let at = |error| EdgeError::vm(vm.slot)(error);
        let mut books = self.books()?;
        for mapping in &vm.mappings {
            let taken = books.host.published_by(mapping).is_some_and(|slot| slot != vm.slot);
            let new = books.host.published_by(mapping).is_none();
            if taken || (new && !self.is_free(mapping).map_err(at)?) {
                return Err(EdgeError::PortTaken(*mapping));
            }
        }
        if let Some(bridge) = &mut books.bridge {
            bridge.set(&*self.host, &self.layout, vm.slot, wanted::port_elements(vm, wire)).map_err(at)?;
        }
        let elements = wanted::elements(&self.layout, vm, wire);
        let taken = books.host.set(&*self.host, &self.layout, vm.slot, elements).map_err(at)?;
        drop(books);
        if taken { self.forget(vm.slot).map_err(at) } else { Ok(()) }
    }

    /// Whether no program of the host listens on a port: a mapping would take its clients away.
    fn is_free(&self, mapping: &Mapping) -> Result<bool, NetworkError> {
        let mut free = false;
        self.host.inside(&mut || {
            let every = (std::net::Ipv4Addr::UNSPECIFIED, mapping.host_port);
            free = match mapping.protocol {
                Protocol::Tcp => TcpListener::bind(every).is_ok(),
                Protocol::Udp => UdpSocket::bind(every).is_ok(),
            };
        })?;
        Ok(free)
    }

    fn addresses(&self, slot: Slot) -> Vec<IpAddr> {
        let four = self.layout.ipv4(slot).map(IpAddr::V4);
        four.into_iter().chain(self.layout.ipv6(slot).map(IpAddr::V6)).collect()
    }

    /// Ends what was permitted once: the filter lets through what is established.
    fn forget(&self, slot: Slot) -> Result<(), NetworkError> {
        self.host.forget_connections(&self.addresses(slot)).map(drop)
    }

    /// Permissions first, then links, then the name: so the kernel has nothing left to do that others could see.
    pub(super) fn remove(&self, id: &VmId, slot: Slot) -> Result<(), EdgeError> {
        let at = |error| EdgeError::vm(slot)(error);
        if self.layout.enabled() {
            let mut books = self.books()?;
            if let Some(bridge) = &mut books.bridge {
                bridge.set(&*self.host, &self.layout, slot, Elements::new()).map_err(at)?;
            }
            books.host.set(&*self.host, &self.layout, slot, Elements::new()).map_err(at)?;
        }
        self.host.remove_link(&slot.link()).or_not_there().map_err(at)?;
        if self.layout.enabled() {
            let books = self.books()?;
            let link = Part::Interface(slot.link());
            let about: Vec<Part> = self.addresses(slot).into_iter().map(Part::Address).chain([link]).collect();
            books.host.forget_counts(&*self.host, &about).map_err(at)?;
            drop(books);
            self.forget(slot).map_err(at)?;
        }
        self.networks.remove_namespace(&id.namespace()).or_not_there().map_err(at)?;
        tracing::debug!(vm_id = %id, "network of the VM is gone");
        Ok(())
    }

    /// Whether the host's end of a VM's link is there.
    pub(super) fn has_link(&self, slot: Slot) -> Result<bool, EdgeError> {
        let link = found(self.host.link(&slot.link())).map_err(EdgeError::vm(slot))?;
        Ok(link.is_some())
    }

    /// Makes namespaces until the pool is full. Returns how many were made.
    pub(super) fn fill_pool(&self) -> Result<usize, EdgeError> {
        self.pool.fill(&*self.networks, &self.inner).map_err(EdgeError::Open)
    }
}

/// Nothing where it is not there.
pub(super) fn found<T>(result: Result<T, NetworkError>) -> Result<Option<T>, NetworkError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_there() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name of a VM's namespace without what all have in front.
pub(super) fn id_in(namespace: &str) -> Option<&str> {
    namespace.strip_prefix(NAMESPACE_PREFIX)
}

/// A layout from a bridge's own addresses.
fn bridged(host: &dyn Network, settings: &EdgeSettings, bridge: &str) -> Result<Layout, EdgeError> {
    let link = found(host.link(bridge)).map_err(EdgeError::Open)?;
    if !link.is_some_and(|link| link.kind == host::network::LinkKind::Bridge) {
        return Err(EdgeError::NoBridge(bridge.to_owned()));
    }
    let (mut four, mut six) = (None, None);
    let (named4, named6) = (settings.bridge_ipv4, settings.bridge_ipv6);
    for address in host.addresses(bridge).map_err(EdgeError::Open)? {
        match address {
            IpNet::V4(own) if own.prefix_len() <= 30 && named4.is_none_or(|named| named == own) => {
                four = four.or(Some(own));
            }
            IpNet::V6(own)
                if own.prefix_len() <= 126
                    && !own.addr().is_unicast_link_local()
                    && named6.is_none_or(|named| named == own) =>
            {
                six = six.or(Some(own));
            }
            _ => {}
        }
    }
    let lacks = |family| Err(EdgeError::BridgeAddress { bridge: bridge.to_owned(), family });
    let other = |address: IpNet| Err(EdgeError::BridgeOther { bridge: bridge.to_owned(), address });
    if let (true, None, Some(named)) = (settings.ipv4, four, named4) {
        return other(named.into());
    }
    if let (true, None, Some(named)) = (settings.ipv6, six, named6) {
        return other(named.into());
    }
    if settings.ipv4 && four.is_none() {
        return lacks("IPv4");
    }
    if settings.ipv6 && six.is_none() {
        return lacks("IPv6");
    }
    Ok(Layout::bridged(settings, bridge, four, six))
}
