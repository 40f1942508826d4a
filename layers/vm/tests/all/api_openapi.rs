//! `api/openapi-vm.json` is what the routes are. `CAIRN_GOLDENS=write` writes it.

use std::path::Path;

#[test]
fn the_document_is_checked_in() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/openapi-vm.json");
    let now = serde_json::to_string_pretty(&vm::api::openapi::document()).unwrap() + "\n";
    if std::env::var_os("CAIRN_GOLDENS").is_some_and(|word| word == "write") {
        std::fs::write(&path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == now, "api/openapi-vm.json is not what the routes are now; CAIRN_GOLDENS=write writes it");
}
