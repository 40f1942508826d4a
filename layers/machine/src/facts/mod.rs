//! What a machine is made of: read by a script on standard input, told in the shape of the upstream operator (groups of
//! strings) and, beside it, with numbers as numbers.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::activation::Shell;
use crate::errors;
use crate::plan::Fault;
use crate::resources::{Cpu, Disk, Hardware, Interface};

/// The script; standard input of `sh -s`.
pub const SCRIPT: &str = include_str!("facts.sh");

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Lines and characters that are taken: a host says what it likes.
const LINES: usize = 2000;
const LENGTH: usize = 1000;

/// Groups whose values are lists where they have a comma.
const LISTED: [&str; 4] = ["storage", "network", "user", "system"];
/// Values that are lists in any case.
const LISTS: [(&str, &str); 2] = [("storage", "filesystems"), ("network", "dns_servers")];

/// Facts of a machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// In upstream's shape.
    pub upstream: Map<String, Value>,
    /// With types.
    pub typed: Hardware,
}

/// Asks a machine.
///
/// # Errors
/// It cannot be asked, or says nothing.
pub async fn ask(shell: &impl Shell) -> Result<Facts, Fault> {
    let argv = ["sh", "-s"].map(str::to_owned);
    let answered = shell.run(&argv, SCRIPT.as_bytes(), false, LIMIT).await?;
    let facts = read(&String::from_utf8_lossy(&answered.stdout));
    if facts.upstream.is_empty() {
        let stderr = String::from_utf8_lossy(&answered.stderr);
        let fault = Fault::lasting(cairn_core::ErrorKind::Failed, errors::MACHINE_HOST, "the machine tells no facts");
        return Err(fault.log(stderr));
    }
    Ok(facts)
}

/// Reads what the script wrote. A line without `=` is passed over; of two lines for one name the later one counts, and a
/// group counts more than a value of its name.
pub fn read(text: &str) -> Facts {
    let mut upstream = Map::new();
    for line in text.lines().take(LINES) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || name.starts_with('.') {
            continue;
        }
        let value: String = value.chars().take(LENGTH).collect();
        match name.split_once('.') {
            None => match upstream.get(name) {
                Some(Value::Object(_)) => {}
                _ => _ = upstream.insert(name.to_owned(), Value::String(value)),
            },
            Some((group, key)) => {
                let value = valued(group, key, value);
                match upstream.get_mut(group) {
                    Some(Value::Object(facts)) => _ = facts.insert(key.to_owned(), value),
                    _ => {
                        let facts = Map::from_iter([(key.to_owned(), value)]);
                        upstream.insert(group.to_owned(), Value::Object(facts));
                    }
                }
            }
        }
    }
    let typed = typed(&upstream);
    Facts { upstream, typed }
}

fn valued(group: &str, key: &str, value: String) -> Value {
    let is_list = LISTS.contains(&(group, key)) || (LISTED.contains(&group) && value.contains(','));
    if is_list && value != "unknown" {
        return value.split(',').map(str::trim).filter(|word| !word.is_empty()).map(Value::from).collect();
    }
    if is_list { Value::Array(Vec::new()) } else { Value::String(value) }
}

fn typed(facts: &Map<String, Value>) -> Hardware {
    let known = |text: &str| !text.is_empty() && text != "unknown";
    let short = |text: &str| text.chars().take(256).collect::<String>();
    let at = |group: &str, key: &str| facts.get(group)?.get(key)?.as_str().filter(|text| known(text)).map(short);
    let top = |key: &str| facts.get(key)?.as_str().filter(|text| known(text)).map(short);
    let group = |name: &str| facts.get(name).and_then(Value::as_object).into_iter().flatten().take(256);
    let words = |value: &Value| value.as_str().map(str::to_owned);
    let cpu = Cpu { model: at("cpu", "model"), cores: at("cpu", "cores").and_then(|cores| cores.parse().ok()) };
    Hardware {
        architecture: top("architecture"),
        kernel_version: at("kernel", "version"),
        os_id: at("os", "id"),
        os_name: at("os", "name"),
        nix_version: at("nix", "version"),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        memory_bytes: at("memory", "mb").and_then(|mb| mb.parse::<u64>().ok()?.checked_mul(1 << 20)),
        virtualization: at("virtualization", "type"),
        serial: at("system", "serial"),
        uuid: at("system", "uuid"),
        disks: group("disk")
            .map(|(name, size)| Disk { name: short(name), size_bytes: size.as_str().and_then(bytes) })
            .collect(),
        interfaces: group("interface")
            .map(|(name, address)| Interface { name: short(name), addresses: words(address).into_iter().collect() })
            .collect(),
    }
}

/// `12GB`, in units of 1024.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let unit = match &text[end..] {
        "TB" => 1 << 40,
        "GB" => 1 << 30,
        "MB" => 1 << 20,
        "B" => 1,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(unit)
}

/// What a file of the kind `NixosFacter` holds: upstream's three keys, and the facts beside them.
pub fn file(facts: &Facts, hostname: &str, address: &str) -> String {
    let machine_id = facts.upstream.get("system").and_then(|system| system.get("machine_id"));
    let value = serde_json::json!({
        "machine-id": machine_id.cloned().unwrap_or_default(),
        "hostname": hostname,
        "ip-address": address,
        "hardware": facts.upstream,
    });
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_become_upstreams_shape_and_types() {
        let text = "os.name=NixOS 24.11\nos.id=nixos\narchitecture=x86_64\ncpu.model=A=B\ncpu.cores=4\nmemory.mb=2048\n\
            storage.filesystems=ext4,vfat\nnetwork.dns_servers=unknown\nsystem.timezone=Etc,UTC\ndisk.vda=20GB\n\
            interface.eth0.5=192.0.2.7\nnoise\n=x\n.y=z\na=2\na.b=1\na=3\nsystem.serial=unknown\n";
        let Facts { upstream, typed } = read(text);
        assert_eq!(upstream["os"]["name"], "NixOS 24.11");
        assert_eq!(upstream["cpu"]["model"], "A=B");
        assert_eq!(upstream["cpu"]["cores"], "4");
        assert_eq!(upstream["storage"]["filesystems"], serde_json::json!(["ext4", "vfat"]));
        assert_eq!(upstream["network"]["dns_servers"], serde_json::json!([]));
        assert_eq!(upstream["system"]["timezone"], serde_json::json!(["Etc", "UTC"]));
        assert_eq!(upstream["interface"]["eth0.5"], "192.0.2.7");
        assert_eq!(upstream["a"], serde_json::json!({ "b": "1" }));
        assert_eq!(upstream["system"]["serial"], "unknown");
        assert_eq!((typed.memory_bytes, typed.serial), (Some(2 << 30), None));
        assert_eq!(typed.disks, [Disk { name: "vda".to_owned(), size_bytes: Some(20 << 30) }]);
        assert_eq!(typed.cpu.and_then(|cpu| cpu.cores), Some(4));
    }

    #[test]
    fn the_script_runs_in_this_machines_shell() {
        let mut child = std::process::Command::new("/bin/sh")
            .arg("-s")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), SCRIPT.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let facts = read(&String::from_utf8(output.stdout).unwrap());
        assert!(facts.typed.memory_bytes.unwrap() > 0 && facts.typed.kernel_version.is_some());
        for group in ["os", "kernel", "cpu", "system", "user", "nix", "storage", "network", "security"] {
            assert!(facts.upstream[group].is_object(), "{group}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_host_says_has_the_shape(text in "([a-z.=, \\n]|unknown|system.|storage.filesystems=|\\PC){0,200}") {
            for (name, value) in read(&text).upstream {
                prop_assert!(!name.is_empty() && !name.contains('.'));
                let leaf = |value: &Value| match value {
                    Value::String(_) => true,
                    Value::Array(words) => words.iter().all(Value::is_string),
                    _ => false,
                };
                let fits = match &value {
                    Value::Object(facts) => !facts.is_empty() && facts.values().all(leaf),
                    Value::String(_) => true,
                    _ => false,
                };
                prop_assert!(fits);
            }
        }

        #[test]
        fn every_name_is_found_again(group in "[a-z]{1,8}", key in "[a-z0-9_.]{1,8}", value in "[A-Za-z0-9 ]{1,20}") {
            let facts = read(&format!("{group}.{key}={value}\n")).upstream;
            let found = &facts[&group][&key];
            prop_assert!(found == value.trim() || found.is_array());
        }
    }
}
