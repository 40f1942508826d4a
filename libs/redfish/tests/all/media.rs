//! Inserting and ejecting, in every shape that drives come in.

use std::time::Duration;

use redfish::{Error, InsertOutcome, MediaOptions, Options, Slot, Vendor};
use serde_json::{Value, json};
use url::Url;

use crate::bmc::{Fake, MEDIA, Reply};
use crate::support::{SIGNATURE, Seen, assert_clean, connect, phase, quick};

const INSERT: &str = "VirtualMedia.InsertMedia";
const EJECT: &str = "VirtualMedia.EjectMedia";

fn image(name: &str) -> Url {
    format!("http://192.0.2.1:8080/media/s/1700000000/{SIGNATURE}/job/{name}?sig={SIGNATURE}").parse().unwrap()
}

fn first(bmc: &redfish::Bmc) -> Slot {
    bmc.slots().unwrap()[0].clone()
}

#[tokio::test]
async fn two_drives_hold_two_images() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    let slots = bmc.slots().unwrap().to_vec();
    for (slot, name) in slots.iter().zip(["boot.iso", "task.iso"]) {
        let outcome = bmc.insert(phase("mount.task"), slot, &image(name), MediaOptions::default()).await.unwrap();
        assert_eq!(outcome, InsertOutcome::Inserted);
    }
    let sent = fake.requests("POST", INSERT)[0].body.clone();
    assert_eq!(sent, json!({"Image": image("boot.iso").as_str(), "Inserted": true, "WriteProtected": true}));
    assert_eq!(fake.machine().get(&format!("{MEDIA}/CD2"), "Image"), image("task.iso").as_str());

    let again = bmc.insert(phase("mount.task"), &slots[0], &image("boot.iso"), MediaOptions::default()).await.unwrap();
    assert_eq!(again, InsertOutcome::AlreadyInserted);
    assert_eq!(fake.requests("POST", INSERT).len(), 2);

    bmc.insert(phase("mount.task"), &slots[0], &image("other.iso"), MediaOptions::default()).await.unwrap();
    assert_eq!(fake.requests("POST", EJECT).len(), 1, "another image goes out first");

    for slot in &slots {
        bmc.eject(phase("cleanup.unmount"), slot).await.unwrap();
        bmc.eject(phase("cleanup.unmount"), slot).await.unwrap();
    }
    let ejected = fake.requests("POST", EJECT);
    assert_eq!(ejected.len(), 3, "an empty drive is left alone");
    assert!(ejected.iter().all(|request| request.body == json!({})), "iLO wants a body");
    assert!(seen.codes("mount.task").len() > 4 && !seen.codes("cleanup.unmount").is_empty());
}

#[tokio::test]
async fn the_form_is_varied_until_the_service_takes_it() {
    type Takes = fn(&Value) -> bool;
    let services: [(Option<Vendor>, Takes, usize); 5] = [
        (None, |body| body.get("Inserted").is_none() && body.get("WriteProtected").is_none(), 2),
        (Some(Vendor::Supermicro), |body| body.get("Inserted").is_none(), 1),
        (None, |body| body["TransferProtocolType"] == "HTTP", 3),
        (None, |body| body["TransferMethod"] == "Stream", 4),
        (Some(Vendor::Dgx), |body| body["UserName"] == "none" && body["Password"] == "none", 1),
    ];
    for (vendor, takes, expected) in services {
        let fake = Fake::start().await;
        fake.hook(move |request, _| {
            let refused = request.is("POST", INSERT) && !takes(&request.body);
            refused.then(|| Reply::message(400, "Base.1.8.PropertyUnknown", "what is this").unwrap())
        });
        let bmc = connect(&fake.url, Options { vendor, ..quick() }, &Seen::new()).await.unwrap();
        bmc.insert(phase("mount.task"), &first(&bmc), &image("a.iso"), MediaOptions::default()).await.unwrap();
        assert_eq!(fake.requests("POST", INSERT).len(), expected);
    }
}

#[tokio::test]
async fn when_every_form_is_refused_the_first_reason_counts() {
    let fake = Fake::start().await;
    let mut number = 0;
    fake.hook(move |request, _| {
        number += usize::from(request.is("POST", INSERT));
        request.is("POST", INSERT).then(|| Reply::message(400, "x", &format!("reason {number}")).unwrap())
    });
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let refused = bmc.insert(phase("mount.task"), &first(&bmc), &image("a.iso"), MediaOptions::default()).await;
    assert!(refused.unwrap_err().to_string().ends_with("answered 400: reason 1"));
}

#[tokio::test]
async fn an_image_that_the_bmc_cannot_fetch_has_its_own_error() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    for (status, id, text) in [
        (400, "IDRAC.2.8.SYS446", "Unable to reach it"),
        (500, "IDRAC.2.8.RAC0904", "Unable to access the remote share"),
        (500, "Base.1.0.GeneralError", "Failed fetching image from URL"),
        (502, "Base.1.0.GeneralError", "Cannot download virtual media: got error 503 from the server"),
    ] {
        let text = format!("{text} {}", image("a.iso"));
        fake.hook(move |request, _| request.is("POST", INSERT).then(|| Reply::message(status, id, &text).unwrap()));
        let before = fake.requests("POST", INSERT).len();
        let failed = bmc.insert(phase("mount.task"), &first(&bmc), &image("a.iso"), MediaOptions::default()).await;
        let error = failed.unwrap_err();
        assert!(matches!(&error, Error::MediaUnreachable { slot, .. } if slot == "CD1"), "{error}");
        assert_eq!(fake.requests("POST", INSERT).len() - before, 1, "asking again would not help");
        assert_clean(&error);
    }
}

/// XCC: no actions; the drive is written to, under its entity tag.
#[tokio::test]
async fn a_drive_without_actions_is_written_to() {
    let fake = Fake::start().await;
    let drive = format!("{MEDIA}/CD1");
    fake.machine().set(&drive, "Actions", json!({}));
    fake.machine().set(&drive, "@odata.etag", json!("W/\"7\""));
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let slot = first(&bmc);
    bmc.insert(phase("mount.task"), &slot, &image("a.iso"), MediaOptions::default()).await.unwrap();
    assert_eq!(fake.requests("PATCH", &drive)[0].header("if-match"), Some("W/\"7\""));
    assert_eq!(fake.machine().get(&drive, "WriteProtected"), json!(true));
    bmc.eject(phase("cleanup.unmount"), &slot).await.unwrap();
    assert_eq!(fake.machine().get(&drive, "Image"), Value::Null);

    // Somebody else writes between reading and writing.
    let mut raced = false;
    fake.hook(move |request, machine| {
        if request.method == "PATCH" && !raced {
            raced = true;
            machine.set(&request.path, "@odata.etag", json!("\"8\""));
        }
        None
    });
    bmc.insert(phase("mount.task"), &slot, &image("b.iso"), MediaOptions::default()).await.unwrap();

    fake.fail("PATCH", "CD1", 405, usize::MAX);
    let failed = bmc.insert(phase("mount.task"), &slot, &image("c.iso"), MediaOptions::default()).await;
    assert!(matches!(failed.unwrap_err(), Error::Http { status: 405, .. }), "the eject before it");
    fake.machine().set(&drive, "Inserted", json!(false));
    let failed = bmc.insert(phase("mount.task"), &slot, &image("c.iso"), MediaOptions::default()).await;
    assert!(matches!(failed.unwrap_err(), Error::Unsupported { .. }));
}

#[tokio::test]
async fn an_order_that_is_accepted_and_not_carried_out_is_noticed() {
    let fake = Fake::start().await;
    let options = Options { settle: Duration::from_millis(100), ..quick() };
    let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
    let slot = first(&bmc);
    fake.hook(|request, _| if request.method == "POST" { Reply::status(204) } else { None });
    let error = bmc.insert(phase("mount.task"), &slot, &image("a.iso"), MediaOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("still empty"), "{error}");
    fake.machine().set(&slot.path, "Inserted", json!(true));
    let error = bmc.eject(phase("cleanup.unmount"), &slot).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("still in the drive"), "{error}");
}

#[tokio::test]
async fn a_lost_answer_is_settled_by_looking() {
    let fake = Fake::start().await;
    let options = Options { insert_timeout: Duration::from_millis(500), ..quick() };
    let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
    let slot = first(&bmc);
    fake.hook(|request, machine| {
        let (resource, _) = request.path.split_once("/Actions/")?;
        machine.set(resource, "Image", request.body["Image"].clone());
        machine.set(resource, "Inserted", json!(true));
        Some(Reply::Hang)
    });
    bmc.insert(phase("mount.task"), &slot, &image("a.iso"), MediaOptions::default()).await.unwrap();
    assert_eq!(fake.requests("POST", INSERT).len(), 1);
}

#[tokio::test]
async fn an_eject_that_fails_on_an_empty_drive_is_no_error() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let slot = first(&bmc);
    fake.machine().set(&slot.path, "Inserted", json!(true));
    fake.hook(|request, machine| {
        let (resource, _) = request.path.split_once("/Actions/")?;
        machine.set(resource, "Inserted", json!(false));
        Reply::message(400, "IDRAC.2.8.VRM0009", "No Virtual Media devices are currently connected.")
    });
    bmc.eject(phase("cleanup.unmount"), &slot).await.unwrap();
    fake.machine().set(&slot.path, "Inserted", json!(true));
    fake.fail("POST", EJECT, 400, usize::MAX);
    assert!(matches!(bmc.eject(phase("cleanup.unmount"), &slot).await, Err(Error::Http { status: 400, .. })));
}

#[tokio::test]
async fn certificate_verification_is_set_where_it_is_known() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let (slot, options) = (first(&bmc), MediaOptions { verify_certificate: Some(false), ..MediaOptions::default() });
    bmc.insert(phase("mount.task"), &slot, &image("a.iso"), options).await.unwrap();
    assert_eq!(fake.machine().get(&slot.path, "VerifyCertificate"), json!(false));
    fake.fail("PATCH", "CD2", 400, usize::MAX);
    let second = bmc.slots().unwrap()[1].clone();
    bmc.insert(phase("mount.task"), &second, &image("b.iso"), options).await.unwrap();
}
