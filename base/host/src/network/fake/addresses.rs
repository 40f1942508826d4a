//! Addresses, routes and neighbours in memory.

use std::io;

use ipnet::IpNet;

use super::super::address::{Addresses, Neighbour, NeighbourEntry, Route};
use super::super::error::{Cause, NetworkError};
use super::{FakeNetwork, World};

/// `ENETDOWN`.
const DOWN: i32 = 100;

impl World {
    fn add_route(&mut self, route: &Route) -> Result<(), Cause> {
        let link = &self.link_mut(&route.link)?.link;
        if !link.up {
            return Err(Cause::from(io::Error::from_raw_os_error(DOWN)));
        }
        let route = Route { link: link.name.clone(), destination: route.destination.trunc(), ..route.clone() };
        // One destination has one route, whichever link it goes through.
        if self.routes.iter().any(|known| known.destination == route.destination) {
            return Err(Cause::AlreadyThere);
        }
        self.routes.push(Route { on_link: route.on_link && route.gateway.is_some(), ..route });
        Ok(())
    }

    fn remove_route(&mut self, route: &Route) -> Result<(), Cause> {
        let name = self.link_mut(&route.link)?.link.name.clone();
        let same = |known: &Route| {
            let gateway = route.gateway.is_none() || known.gateway == route.gateway;
            known.destination == route.destination.trunc() && known.link == name && gateway
        };
        let at = self.routes.iter().position(same).ok_or(Cause::NotThere)?;
        self.routes.remove(at);
        Ok(())
    }

    fn add_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), Cause> {
        let link = self.link_mut(&neighbour.link)?.link.name.clone();
        let neighbour = Neighbour { link, ..neighbour.clone() };
        let known = self.neighbours.iter().any(|known| same_neighbour(known, &neighbour));
        match (known, neighbour.entry) {
            (true, NeighbourEntry::Permanent(_)) => Err(Cause::AlreadyThere),
            (true, NeighbourEntry::Proxy) => Ok(()),
            (false, _) => {
                self.neighbours.push(neighbour);
                Ok(())
            }
        }
    }

    fn remove_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), Cause> {
        let link = self.link_mut(&neighbour.link)?.link.name.clone();
        let neighbour = Neighbour { link, ..neighbour.clone() };
        let at = self.neighbours.iter().position(|known| same_neighbour(known, &neighbour)).ok_or(Cause::NotThere)?;
        self.neighbours.remove(at);
        Ok(())
    }
}

fn same_neighbour(one: &Neighbour, other: &Neighbour) -> bool {
    let proxies = [one, other].map(|neighbour| neighbour.entry == NeighbourEntry::Proxy);
    one.link == other.link && one.address == other.address && proxies[0] == proxies[1]
}

impl FakeNetwork {
    /// Tries every entry; the error is that of the first, or of the first that is not as `expected`.
    fn each<T>(
        &self,
        entries: &[T],
        words: impl Fn(&T) -> (String, String),
        expected: fn(&NetworkError) -> bool,
        step: impl Fn(&mut World, &T) -> Result<(), Cause>,
    ) -> Result<(), NetworkError> {
        let mut worst = Ok(());
        for entry in entries {
            let (operation, object) = words(entry);
            if let Err(error) = self.step(&operation, &object, |world| step(world, entry)) {
                let mild = worst.as_ref().err().is_none_or(expected);
                if worst.is_ok() || (mild && !expected(&error)) {
                    worst = Err(error);
                }
            }
        }
        worst
    }
}

impl Addresses for FakeNetwork {
    fn add_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError> {
        let words = |address: &IpNet| (format!("add address {address} to"), format!("link {link}"));
        self.each(addresses, words, NetworkError::is_already_there, |world, address| {
            let known = &mut world.link_mut(link)?.addresses;
            if known.contains(address) {
                return Err(Cause::AlreadyThere);
            }
            known.push(*address);
            Ok(())
        })
    }

    fn remove_addresses(&self, link: &str, addresses: &[IpNet]) -> Result<(), NetworkError> {
        let words = |address: &IpNet| (format!("remove address {address} from"), format!("link {link}"));
        self.each(addresses, words, NetworkError::is_not_there, |world, address| {
            let known = &mut world.link_mut(link)?.addresses;
            let at = known.iter().position(|known| known == address).ok_or(Cause::NotThere)?;
            known.remove(at);
            Ok(())
        })
    }

    fn addresses(&self, link: &str) -> Result<Vec<IpNet>, NetworkError> {
        let object = format!("link {link}");
        self.step("list the addresses of", &object, |world| Ok(world.link_mut(link)?.addresses.clone()))
    }

    fn add_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        let words = |route: &Route| ("add".to_owned(), route.to_string());
        self.each(routes, words, NetworkError::is_already_there, World::add_route)
    }

    fn remove_routes(&self, routes: &[Route]) -> Result<(), NetworkError> {
        let words = |route: &Route| ("remove".to_owned(), route.to_string());
        self.each(routes, words, NetworkError::is_not_there, World::remove_route)
    }

    fn routes(&self) -> Result<Vec<Route>, NetworkError> {
        self.step("list", "the routes", |world| Ok(world.routes.clone()))
    }

    fn add_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError> {
        let words = |neighbour: &Neighbour| ("add".to_owned(), neighbour.to_string());
        self.each(neighbours, words, NetworkError::is_already_there, World::add_neighbour)
    }

    fn remove_neighbours(&self, neighbours: &[Neighbour]) -> Result<(), NetworkError> {
        let words = |neighbour: &Neighbour| ("remove".to_owned(), neighbour.to_string());
        self.each(neighbours, words, NetworkError::is_not_there, World::remove_neighbour)
    }

    fn neighbours(&self) -> Result<Vec<Neighbour>, NetworkError> {
        self.step("list", "the neighbours", |world| Ok(world.neighbours.clone()))
    }
}
