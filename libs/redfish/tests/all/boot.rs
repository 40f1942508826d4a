//! Setting the boot override and taking it back.

use std::time::Duration;

use redfish::{BootMode, BootWarning, Error, Options, Vendor};
use serde_json::{Value, json};

use crate::bmc::{Fake, Reply, SYSTEM};
use crate::support::{Seen, connect, phase, quick};

const SETTINGS: &str = "/redfish/v1/Systems/1/SD";

fn boot(fake: &Fake, path: &str, key: &str) -> Value {
    fake.machine().resources[path]["Boot"][key].clone()
}

#[tokio::test]
async fn once_from_the_cd_and_back() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    let set = bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap();
    assert_eq!((set.enabled.as_deref(), set.target.as_deref()), (Some("Once"), Some("Cd")));
    assert!(set.warnings.is_empty());
    let sent = fake.requests("PATCH", SYSTEM)[0].body.clone();
    assert_eq!(sent, json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"}}));

    let cleared = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap();
    assert_eq!(cleared.enabled.as_deref(), Some("Disabled"));
    bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap();
    assert_eq!(fake.requests("PATCH", SYSTEM).len(), 2, "what is clear is left alone");
    assert!(!seen.codes("boot.override").is_empty());
}

#[tokio::test]
async fn vendors_get_their_target_and_mode() {
    let fake = Fake::start().await;
    fake.machine().resources.get_mut(SYSTEM).unwrap()["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] =
        json!(["None", "Cd", "UsbCd"]);
    let options = Options { vendor: Some(Vendor::Supermicro), ..quick() };
    let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
    bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap();
    assert_eq!(boot(&fake, SYSTEM, "BootSourceOverrideTarget"), "UsbCd");
    assert_eq!(fake.requests("PATCH", SYSTEM)[0].body["Boot"]["BootSourceOverrideMode"], "UEFI");
}

#[tokio::test]
async fn a_mode_that_cannot_be_written_is_a_warning() {
    let fake = Fake::start().await;
    fake.hook(|request, _| {
        let mode = request.body["Boot"].get("BootSourceOverrideMode").is_some();
        mode.then(|| Reply::message(400, "Base.1.8.PropertyNotWritable", "read-only").unwrap())
    });
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let set = bmc.boot_once_from_cd(phase("boot.override"), Some(BootMode::Legacy)).await.unwrap();
    assert_eq!(set.warnings, [BootWarning::ModeRefused]);
    let set = bmc.boot_once_from_cd(phase("boot.override"), Some(BootMode::Uefi)).await.unwrap();
    assert!(set.warnings.is_empty());
}

/// A settings object with an entity tag, as AMI has it; on others it is the second choice.
#[tokio::test]
async fn the_settings_object_is_written_under_its_tag() {
    for vendor in [Vendor::Ami, Vendor::Generic] {
        let fake = Fake::start().await;
        {
            let mut machine = fake.machine();
            machine.set(SYSTEM, "@Redfish.Settings", json!({"SettingsObject": {"@odata.id": SETTINGS}}));
            machine.resources.insert(SETTINGS.to_owned(), json!({"Id": "SD", "@odata.etag": "\"1\"", "Boot": {}}));
        }
        fake.hook(|request, _| if request.is("PATCH", SYSTEM) { Reply::status(405) } else { None });
        let bmc = connect(&fake.url, Options { vendor: Some(vendor), ..quick() }, &Seen::new()).await.unwrap();
        let set = bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap();
        assert_eq!(set.target.as_deref(), Some("Cd"));
        assert_eq!(boot(&fake, SETTINGS, "BootSourceOverrideTarget"), "Cd");
        assert_eq!(fake.requests("PATCH", SETTINGS)[0].header("if-match"), Some("\"1\""));
        assert_eq!(fake.requests("PATCH", SYSTEM).len(), usize::from(vendor == Vendor::Generic));
        // The system follows at its reset; then the override has to be cleared at the same place.
        fake.machine().resources.get_mut(SYSTEM).unwrap()["Boot"] =
            json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd"});
        let cleared = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap();
        assert_eq!(cleared.enabled.as_deref(), Some("Disabled"));
        assert_eq!(boot(&fake, SETTINGS, "BootSourceOverrideEnabled"), "Disabled");
    }
}

#[tokio::test]
async fn clearing_goes_through_the_forms_until_one_works() {
    type Takes = fn(&Value) -> bool;
    let services: [(Vendor, Takes, &str); 4] = [
        (Vendor::Generic, |boot| boot["BootSourceOverrideTarget"] == "None", "None"),
        (Vendor::Ilo, |boot| boot["BootSourceOverrideTarget"] == "Pxe", "Pxe"),
        (Vendor::Generic, |boot| boot["BootSourceOverrideTarget"] == "Hdd", "Hdd"),
        (Vendor::Generic, |boot| boot.get("BootSourceOverrideTarget").is_none(), "Cd"),
    ];
    for (number, (vendor, takes, target)) in services.into_iter().enumerate() {
        let fake = Fake::start().await;
        fake.machine().resources.get_mut(SYSTEM).unwrap()["Boot"] =
            json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd"});
        let status = if number % 2 == 0 { 500 } else { 400 };
        fake.hook(move |request, _| {
            let refused = request.is("PATCH", SYSTEM) && !takes(&request.body["Boot"]);
            refused.then(|| Reply::message(status, "x", "not like this").unwrap())
        });
        let bmc = connect(&fake.url, Options { vendor: Some(vendor), ..quick() }, &Seen::new()).await.unwrap();
        let cleared = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap();
        assert_eq!(cleared.target.as_deref(), Some(target));
    }
}

#[tokio::test]
async fn an_override_that_stays_is_an_error() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, Options { settle: Duration::from_millis(100), ..quick() }, &Seen::new()).await;
    let bmc = bmc.unwrap();
    fake.hook(|request, _| if request.is("PATCH", SYSTEM) { Reply::status(204) } else { None });
    let error = bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("Disabled None"), "{error}");

    fake.machine().resources.get_mut(SYSTEM).unwrap()["Boot"] =
        json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd"});
    let error = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("Continuous Cd"), "{error}");
    fake.fail("PATCH", SYSTEM, 400, usize::MAX);
    let error = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap_err();
    assert!(matches!(error, Error::Http { status: 400, .. }), "{error}");
}

#[tokio::test]
async fn continuous_is_only_a_warning() {
    let fake = Fake::start().await;
    fake.hook(|request, machine| {
        if !request.is("PATCH", SYSTEM) {
            return None;
        }
        machine.resources.get_mut(SYSTEM)?["Boot"] =
            json!({"BootSourceOverrideEnabled": "Continuous", "BootSourceOverrideTarget": "Cd"});
        Reply::status(204)
    });
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let set = bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap();
    assert_eq!(set.warnings, [BootWarning::OnceReadsContinuous]);
}
