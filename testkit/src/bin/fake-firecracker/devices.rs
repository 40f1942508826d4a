//! Drives and network interfaces: what is refused about them.

use std::fs::File;

use serde_json::{Map, Value};

use crate::fields::{self, DRIVE, DRIVE_UPDATE, NETWORK, NETWORK_UPDATE};

/// Longest name of a network device in the kernel.
const INTERFACE_NAME_LIMIT: usize = 15;

/// Devices of one kind, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct Devices(Vec<Map<String, Value>>);

impl Devices {
    pub(crate) fn ids<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |device| device[key].as_str())
    }

    pub(crate) fn has(&self, key: &str, id: &str) -> bool {
        self.ids(key).any(|known| known == id)
    }

    pub(crate) fn list(&self) -> Value {
        self.0.iter().cloned().map(Value::Object).collect()
    }

    pub(crate) fn restore(list: &Value) -> Self {
        Self(list.as_array().into_iter().flatten().filter_map(|device| device.as_object().cloned()).collect())
    }

    fn put(&mut self, key: &str, device: Map<String, Value>) {
        match self.0.iter_mut().find(|known| known[key] == device[key]) {
            Some(known) => *known = device,
            None => self.0.push(device),
        }
    }

    fn others<'a>(&'a self, key: &'a str, id: &'a Value) -> impl Iterator<Item = &'a Map<String, Value>> {
        self.0.iter().filter(move |known| known[key] != *id)
    }

    /// `PUT /drives/{id}`; Err is the fault.
    pub(crate) fn put_drive(&mut self, id: &str, body: &[u8]) -> Result<(), String> {
        let drive = fields::read(body, DRIVE)?;
        same_id(id, &drive["drive_id"])?;
        let is_root = |drive: &Map<String, Value>| drive["is_root_device"] == true;
        if is_root(&drive) && self.others("drive_id", &drive["drive_id"]).any(is_root) {
            return Err("Drive config error: A root block device already exists!".to_owned());
        }
        let Some(path) = drive.get("path_on_host").and_then(Value::as_str) else {
            return Err("Drive config error: Unable to create the virtio block device: Invalid block config.".into());
        };
        let writable = drive.get("is_read_only") != Some(&Value::Bool(true));
        File::options().read(true).write(writable).open(path).map_err(|error| {
            format!(
                "Drive config error: Unable to create the virtio block device: Virtio backend error: \
                 Error manipulating the backing file: {error} {path}"
            )
        })?;
        self.put("drive_id", drive);
        Ok(())
    }

    /// `PATCH /drives/{id}`; Err is the fault.
    pub(crate) fn patch_drive(&mut self, id: &str, body: &[u8]) -> Result<(), String> {
        let update = fields::read(body, DRIVE_UPDATE)?;
        same_id(id, &update["drive_id"])?;
        let fault = |what: &str| {
            format!("Drive config error: Unable to patch the block device: {what} Please verify the request arguments.")
        };
        if let Some(path) = update.get("path_on_host").and_then(Value::as_str) {
            File::open(path).map_err(|error| fault(&format!("Virtio backend error: {error} {path}")))?;
        }
        self.patch("drive_id", update).ok_or_else(|| fault("Failed perform action on device: Device not found"))
    }

    /// `PUT /network-interfaces/{id}`; Err is the fault.
    pub(crate) fn put_network(&mut self, id: &str, body: &[u8]) -> Result<(), String> {
        let interface = fields::read(body, NETWORK)?;
        same_id(id, &interface["iface_id"])?;
        let name = interface["host_dev_name"].as_str().unwrap_or_default();
        if name.is_empty() || name.len() > INTERFACE_NAME_LIMIT {
            return Err("Network config error: Could not create the network device: Open tap device failed: \
                        Invalid interface name"
                .to_owned());
        }
        if let Some(mac) = interface.get("guest_mac")
            && self.others("iface_id", &interface["iface_id"]).any(|other| other.get("guest_mac") == Some(mac))
        {
            return Err(format!("Network config error: The MAC address is already in use: {mac}"));
        }
        self.put("iface_id", interface);
        Ok(())
    }

    /// `PATCH /network-interfaces/{id}`; Err is the fault.
    pub(crate) fn patch_network(&mut self, id: &str, body: &[u8]) -> Result<(), String> {
        let update = fields::read(body, NETWORK_UPDATE)?;
        same_id(id, &update["iface_id"])?;
        let fault = "Network config error: Unable to update the net device: Failed perform action on device: \
                     Device not found";
        self.patch("iface_id", update).ok_or_else(|| fault.to_owned())
    }

    /// Changes a device that is there.
    fn patch(&mut self, key: &str, update: Map<String, Value>) -> Option<()> {
        let known = self.0.iter_mut().find(|known| known[key] == update[key])?;
        known.extend(update);
        Some(())
    }
}

fn same_id(path: &str, body: &Value) -> Result<(), String> {
    if path.is_empty() {
        return Err("The ID cannot be empty.".to_owned());
    }
    if !path.chars().all(|letter| letter.is_alphanumeric() || letter == '_') {
        return Err("API Resource IDs can only contain alphanumeric characters and underscores.".to_owned());
    }
    if body != path {
        return Err("The id from the path does not match the id from the body!".to_owned());
    }
    Ok(())
}
