//! The parts of Redfish resources that are read, after DMTF's DSP2046.
//!
//! BMCs answer null, numbers for strings and objects for lists; every field is optional and a value of the wrong type
//! counts as absent, so that a fault in a field nobody needs breaks nothing.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A value of the wrong type is no value.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// Makes a struct of optional, leniently read fields, each with the name it has in JSON.
macro_rules! resource {
    ($(#[$doc:meta])* $name:ident { $($json:literal => $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        pub(crate) struct $name {
            $(#[serde(rename = $json, default, deserialize_with = "lenient")] pub(crate) $field: Option<$type>,)*
        }
    };
}

resource!(
    /// A reference to another resource.
    Link { "@odata.id" => id: String, }
);
resource!(
    /// `/redfish/v1/`.
    ServiceRoot {
        "RedfishVersion" => redfish_version: String,
        "Vendor" => vendor: String,
        "Product" => product: String,
        "Oem" => oem: Map<String, Value>,
        "Systems" => systems: Link,
        "Managers" => managers: Link,
        "SessionService" => session_service: Link,
        "Links" => links: RootLinks,
    }
);
resource!(
    /// `Links` of the service root.
    RootLinks { "Sessions" => sessions: Link, }
);
resource!(
    /// `SessionService`.
    SessionService { "Sessions" => sessions: Link, }
);
resource!(
    /// Any collection.
    Collection { "Members" => members: Vec<Link>, "Members@odata.nextLink" => next: String, }
);
resource!(
    /// `ComputerSystem`.
    System {
        "@odata.id" => odata_id: String,
        "Id" => id: String,
        "UUID" => uuid: String,
        "SerialNumber" => serial_number: String,
        "SKU" => sku: String,
        "Manufacturer" => manufacturer: String,
        "Model" => model: String,
        "BiosVersion" => bios_version: String,
        "PowerState" => power_state: String,
        "Boot" => boot: Boot,
        "MemorySummary" => memory: MemorySummary,
        "ProcessorSummary" => processors: ProcessorSummary,
        "Links" => links: SystemLinks,
        "VirtualMedia" => virtual_media: Link,
        "Actions" => actions: SystemActions,
        "@Redfish.Settings" => settings: Settings,
        "Oem" => oem: Map<String, Value>,
    }
);
resource!(
    /// `Links` of a system.
    SystemLinks { "ManagedBy" => managed_by: Vec<Link>, }
);
resource!(
    /// `MemorySummary` of a system.
    MemorySummary { "TotalSystemMemoryGiB" => total_gib: f64, }
);
resource!(
    /// `ProcessorSummary` of a system.
    ProcessorSummary { "Count" => count: u64, }
);
resource!(
    /// `Actions` of a system.
    SystemActions { "#ComputerSystem.Reset" => reset: ResetAction, }
);
resource!(
    /// The reset action and what it takes.
    ResetAction { "target" => target: String, "ResetType@Redfish.AllowableValues" => allowed: Vec<String>, }
);
resource!(
    /// `Boot` of a system.
    Boot {
        "BootSourceOverrideEnabled" => enabled: String,
        "BootSourceOverrideTarget" => target: String,
        "BootSourceOverrideMode" => mode: String,
        "BootSourceOverrideTarget@Redfish.AllowableValues" => allowed: Vec<String>,
    }
);
resource!(
    /// Where changes have to be written to, when it is not the resource itself.
    Settings { "SettingsObject" => object: Link, }
);
resource!(
    /// `Manager`.
    Manager {
        "Id" => id: String,
        "Model" => model: String,
        "FirmwareVersion" => firmware_version: String,
        "VirtualMedia" => virtual_media: Link,
    }
);
resource!(
    /// `VirtualMedia`.
    VirtualMedia {
        "Id" => id: String,
        "MediaTypes" => media_types: Vec<String>,
        "Image" => image: String,
        "Inserted" => inserted: bool,
        "ConnectedVia" => connected_via: String,
        "Actions" => actions: MediaActions,
    }
);
resource!(
    /// `Actions` of a virtual medium.
    MediaActions { "#VirtualMedia.InsertMedia" => insert: Action, "#VirtualMedia.EjectMedia" => eject: Action, }
);
resource!(
    /// An action without parameters of interest.
    Action { "target" => target: String, }
);

impl Link {
    /// The address, unless it is empty.
    pub(crate) fn address(&self) -> Option<&str> {
        self.id.as_deref().filter(|id| !id.is_empty())
    }
}

impl VirtualMedia {
    /// Whether something is in the drive. Services that leave `Inserted` out still name the image.
    pub(crate) fn occupied(&self) -> bool {
        let image = self.image.as_deref().is_some_and(|image| !image.is_empty());
        match self.inserted {
            Some(inserted) => inserted,
            None => image && self.connected_via.as_deref() != Some("NotConnected"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_types_count_as_absent() {
        let system: System = serde_json::from_str(
            r#"{"Id": 1, "Boot": [], "Links": {"ManagedBy": {"@odata.id": "/x"}}, "PowerState": null, "Model": "M"}"#,
        )
        .unwrap();
        assert_eq!(system.id, None);
        assert_eq!(system.model.as_deref(), Some("M"));
        assert!(system.links.unwrap().managed_by.is_none());
    }

    #[test]
    fn occupied_reads_both_shapes() {
        let occupied = |json: &str| serde_json::from_str::<VirtualMedia>(json).unwrap().occupied();
        assert!(occupied(r#"{"Inserted": true}"#));
        assert!(!occupied(r#"{"Inserted": false, "Image": "http://x/a.iso"}"#));
        assert!(occupied(r#"{"Image": "http://x/a.iso"}"#));
        assert!(!occupied(r#"{"Image": "http://x/a.iso", "ConnectedVia": "NotConnected"}"#));
        assert!(!occupied(r#"{"Image": ""}"#));
    }
}
