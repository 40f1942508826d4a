//! What only the fake can do.

use host::network::{
    Cause, FakeNetworks, Family, ForeignChain, Network, Networks, NewKind, NewLink, Obstacle, Place, Repeatable, Table,
};

fn with_one() -> (FakeNetworks, Box<dyn Network>) {
    let networks = FakeNetworks::new();
    networks.create_namespace("one").unwrap();
    let network = networks.open(&Place::named("one")).unwrap();
    (networks, network)
}

#[test]
fn a_step_is_refused_by_its_words() {
    let (networks, network) = with_one();
    networks.refuse("bridge br1 in namespace one");
    let error = network.add_link(&NewLink::new("br1", NewKind::Bridge)).unwrap_err();
    assert!(matches!(*error.cause, Cause::Kernel { .. }), "{error}");
    assert!(network.link("br1").unwrap_err().is_not_there());
    network.add_link(&NewLink::new("br2", NewKind::Bridge)).unwrap();
    networks.refuse("make namespace two");
    assert!(networks.create_namespace("two").or_already_there().is_err());
    networks.refuse_nothing();
    network.add_link(&NewLink::new("br1", NewKind::Bridge)).unwrap();
    networks.create_namespace("two").unwrap();
}

#[test]
fn a_namespace_lives_as_long_as_something_holds_it() {
    let (networks, network) = with_one();
    let host = networks.open(&Place::Host).unwrap();
    host.add_link(&NewLink::veth("tapv1", "eth0", Some(Place::named("one")))).unwrap();
    networks.put_process(7, "one").unwrap();
    networks.remove_namespace("one").unwrap();
    drop(network);
    networks.open(&Place::Process(7)).unwrap().link("eth0").unwrap();
    host.link("tapv1").unwrap();

    let (networks, network) = with_one();
    let host = networks.open(&Place::Host).unwrap();
    host.add_link(&NewLink::veth("tapv1", "eth0", Some(Place::named("one")))).unwrap();
    networks.remove_namespace("one").unwrap();
    network.link("eth0").unwrap();
    drop(network);
    assert!(host.link("tapv1").unwrap_err().is_not_there(), "the pair ended with the namespace");
}

#[test]
fn connections_and_chains_of_others_are_as_told() {
    let (networks, network) = with_one();
    let place = Place::named("one");
    let [one, two, three] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| address.parse().unwrap());
    networks.track(&place, one, two).unwrap();
    networks.track(&place, two, three).unwrap();
    assert_eq!(network.forget_connections(&[one]).unwrap(), 1);
    assert_eq!(network.forget_connections(&[three]).unwrap(), 1);
    let chain = ForeignChain {
        table: Table::new(Family::Ip, "filter"),
        chain: "FORWARD".into(),
        hook: "forward".into(),
        priority: 0,
        obstacle: Obstacle::Policy,
        owners: vec!["Docker"],
    };
    networks.set_foreign_chains(&place, vec![chain.clone()]).unwrap();
    assert_eq!(network.foreign_chains(&[]).unwrap(), [chain]);
    assert!(network.foreign_chains(&[Table::new(Family::Ip, "filter")]).unwrap().is_empty());
}
