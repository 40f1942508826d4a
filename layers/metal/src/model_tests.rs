use super::*;

#[test]
fn words_read_back() {
    for status in Status::ALL {
        assert_eq!(status.as_str().parse::<Status>(), Ok(status));
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    assert_eq!("power-off".parse::<Phase>(), Ok(Phase::PowerOff));
    assert_eq!(serde_json::to_value(Phase::ClearOverride).unwrap(), "clear-override");
    assert!("done".parse::<Status>().is_err());
}

#[test]
fn serial_numbers_cannot_leave_their_path() {
    for good in ["ABC123", "4c4c4544-0042", "VMware-56:4d", "a"] {
        assert!(good.parse::<Serial>().is_ok(), "{good}");
    }
    for bad in ["", "..", "a/b", "-x", "a b", &"x".repeat(65)] {
        assert!(bad.parse::<Serial>().is_err(), "{bad}");
    }
}

#[test]
fn addresses_of_bmcs() {
    assert_eq!(BmcSpec::url_of("192.0.2.7").unwrap().as_str(), "https://192.0.2.7/");
    assert_eq!(BmcSpec::url_of("http://[::1]:8000").unwrap().as_str(), "http://[::1]:8000/");
    for bad in ["", "https://", "ftp://x", "https://root:calvin@192.0.2.7", "a b"] {
        assert!(BmcSpec::url_of(bad).is_err(), "{bad}");
    }
}

#[test]
fn two_records_of_one_machine_are_known() {
    let bmc = |address: &str, system: Option<&str>| BmcSpec {
        address: address.to_owned(),
        username: "root".to_owned(),
        tls: BmcTls::System,
        system: system.map(str::to_owned),
    };
    let own = bmc("https://192.0.2.7", Some("1"));
    assert!(own.may_be_same(&bmc("192.0.2.7:443", Some("1"))));
    assert!(own.may_be_same(&bmc("192.0.2.7", None)));
    assert!(!own.may_be_same(&bmc("192.0.2.7", Some("2"))));
    assert!(!own.may_be_same(&bmc("192.0.2.8", Some("1"))));
}
