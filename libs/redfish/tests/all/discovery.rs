//! Finding system, manager and drives; refusing to be led elsewhere.

use redfish::{Error, Options, PowerState, Vendor};
use serde_json::json;

use crate::bmc::{Fake, MANAGER, MEDIA, Reply, SYSTEM, collection, drive};
use crate::support::{Seen, assert_clean, connect, phase, quick};

fn names(bmc: &redfish::Bmc) -> Vec<String> {
    bmc.slots().unwrap().iter().map(|slot| slot.id.clone()).collect()
}

#[tokio::test]
async fn everything_is_found_by_links() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    assert_eq!(names(&bmc), ["CD1", "CD2", "Stick"]);
    assert_eq!(bmc.slots().unwrap().iter().filter(|slot| slot.is_cd).count(), 2);
    let inventory = bmc.inventory(phase("discover")).await.unwrap();
    assert_eq!(inventory.serial_number.as_deref(), Some("SN-1"));
    assert_eq!(inventory.bmc_version.as_deref(), Some("7.0"));
    assert_eq!(inventory.memory_gib, Some(64.0));
    assert_eq!((inventory.power, inventory.processors), (PowerState::Off, Some(2)));
    assert_eq!((inventory.vendor, inventory.vendor_label.as_str()), (Vendor::Generic, "example_works"));
    assert_eq!(seen.vendors(), ["unknown", "example_works"]);
    assert!(fake.requests("GET", "/redfish/v1/")[0].header("authorization").is_none(), "the root is open");
}

#[tokio::test]
async fn one_of_several_systems_has_to_be_named() {
    let fake = Fake::start().await;
    {
        let mut machine = fake.machine();
        let mut other = machine.resources[SYSTEM].clone();
        other["@odata.id"] = json!("/redfish/v1/Systems/2");
        other["Id"] = json!("2");
        other["SerialNumber"] = json!("SN-2");
        other["UUID"] = json!("00000000-0000-4000-8000-000000000002");
        machine.resources.insert("/redfish/v1/Systems/2".to_owned(), other);
        machine.resources.insert("/redfish/v1/Systems".to_owned(), collection(&[SYSTEM, "/redfish/v1/Systems/2"]));
    }
    let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(matches!(&error, Error::AmbiguousSystem { seen } if seen.len() == 2), "{error}");
    for name in ["sn-2", "00000000-0000-4000-8000-000000000002", "2"] {
        let options = Options { system: Some(name.to_owned()), ..quick() };
        let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
        let inventory = bmc.inventory(phase("discover")).await.unwrap();
        assert_eq!(inventory.serial_number.as_deref(), Some("SN-2"));
    }
    let options = Options { system: Some("SN-9".to_owned()), ..quick() };
    let error = connect(&fake.url, options, &Seen::new()).await.unwrap_err();
    assert!(matches!(&error, Error::NoSystem { .. }) && error.to_string().contains("SN-1"), "{error}");
}

#[tokio::test]
async fn the_systems_own_collection_is_taken_when_it_has_more_drives() {
    let fake = Fake::start().await;
    let own = "/redfish/v1/Systems/1/VirtualMedia";
    {
        let mut machine = fake.machine();
        machine.resources.insert(MEDIA.to_owned(), collection(&[&format!("{MEDIA}/CD1"), &format!("{MEDIA}/Stick")]));
        machine.set(SYSTEM, "VirtualMedia", json!({"@odata.id": own}));
        machine.resources.insert(own.to_owned(), collection(&[&format!("{own}/1"), &format!("{own}/2")]));
        for id in ["1", "2"] {
            let path = format!("{own}/{id}");
            let resource = drive(&path, id, &["CD", "DVD", "USBStick"]);
            machine.resources.insert(path, resource);
        }
    }
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    assert_eq!(names(&bmc), ["1", "2"]);
    fake.machine().resources.insert(own.to_owned(), collection(&[]));
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    assert_eq!(names(&bmc), ["CD1", "Stick"], "one CD drive only");
}

#[tokio::test]
async fn a_bmc_without_drives_says_so() {
    let fake = Fake::start().await;
    fake.machine().set(MANAGER, "VirtualMedia", json!(null));
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    assert!(matches!(bmc.slots(), Err(Error::NoVirtualMedia { .. })));
}

#[tokio::test]
async fn a_redirect_stays_within_the_bmc() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    fake.hook(|request, _| {
        let location = vec![("location", SYSTEM.to_owned())];
        request.path.ends_with("/by-name").then(|| Reply::With(307, location, String::new()))
    });
    fake.machine().resources.insert("/redfish/v1/Systems".to_owned(), collection(&["/redfish/v1/Systems/by-name"]));
    connect(&fake.url, quick(), &Seen::new()).await.unwrap();

    let elsewhere = other.url.join(SYSTEM).unwrap().to_string();
    fake.hook(move |request, _| {
        let location = vec![("location", elsewhere.clone())];
        request.path.ends_with("/by-name").then(|| Reply::With(307, location, String::new()))
    });
    let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    let link = other.url.join("/redfish/v1/Systems/1").unwrap().to_string();
    fake.machine().resources.insert("/redfish/v1/Systems".to_owned(), collection(&[&link]));
    let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert!(other.machine().seen.is_empty(), "nothing was sent elsewhere");
    assert_clean(&error);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let fake = Fake::start().await;
    fake.hook(|request, _| {
        let location = vec![("location", SYSTEM.to_owned())];
        request.path.ends_with(SYSTEM).then(|| Reply::With(308, location, String::new()))
    });
    let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
}

#[tokio::test]
async fn answers_that_are_no_redfish_are_named() {
    let fake = Fake::start().await;
    for (body, problem) in [("<html>", "no JSON"), ("[]", "no JSON object"), ("{}", "no link to Systems")] {
        fake.hook(move |request, _| {
            request.path.ends_with("/v1/").then(|| Reply::With(200, Vec::new(), body.to_owned()))
        });
        let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
        assert!(matches!(&error, Error::Protocol { path, .. } if path.contains("/redfish/v1/")), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    }
    fake.hook(|_, _| Some(Reply::With(200, Vec::new(), " ".repeat(5 * 1024 * 1024))));
    let error = connect(&fake.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn an_address_has_to_be_http() {
    for bad in ["ftp://192.0.2.1/", "data:x"] {
        let error = connect(&bad.parse().unwrap(), quick(), &Seen::new()).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
    }
}
