//! The crate from outside: checking, planning and sorting recipes.

// A failed unwrap is a failed test, also in what the tests share.
#![allow(clippy::unwrap_used)]

mod layout;
mod recipes;

use serde_json::{Value, json};

/// A recipe that installs Linux the usual way.
fn linux() -> Value {
    json!({
        "$schema": "https://shoal.dev/provisioner/recipe.schema.json",
        "task_target": "install-linux.target",
        "target_disk": "/dev/disk/by-id/nvme-eui.0025388b710116a1",
        "oci_url": "os-images/debian:13",
        "partition_layout": [
            {"size": "512M", "type_guid": "ef00", "format": "vfat", "label": "EFI"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "root"},
            {"size": "16MiB", "type_guid": "0700", "format": "vfat", "label": "cidata"}
        ],
        "user_data": "#cloud-config\npassword: planted-secret\n",
        "env": {"hostname": "node-7"}
    })
}

/// [`linux`] with the value at a JSON pointer replaced or, for the last part of an object, added.
fn linux_with(pointer: &str, value: Value) -> Value {
    let mut recipe = linux();
    match recipe.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            recipe.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        }
    }
    recipe
}

fn parsed(recipe: &Value) -> recipe::Recipe {
    recipe::parse(recipe).unwrap_or_else(|violations| panic!("{violations:#?}"))
}
