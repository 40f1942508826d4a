//! `cairn vm create`: a VM from flags, from a file, or from both.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cli::{Daemon, Output, read_text, segment, usage};
use ipnet::IpNet;
use reqwest::Method;
use serde_json::{Value, json};
use web::Problem;

use super::life;
use super::view::VmView;
use crate::model::{AssetName, CustomerId, Egress, Port, Protocol, RestartPolicy, State, Storage, VmId, VmSpec};

/// Processors of a VM that says nothing.
const VCPUS: i32 = 1;
/// Memory of a VM that says nothing, in bytes.
const MEMORY: i64 = 256 << 20;

/// Flags of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// Its id; chosen by the daemon where it is left out
    #[arg(value_name = "VM")]
    id: Option<VmId>,
    /// Processors, 1 to 32 [default: 1]
    #[arg(long, value_name = "N")]
    vcpus: Option<i32>,
    /// Memory, for example 512MiB [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<i64>,
    /// Kernel
    #[arg(long, value_name = "ASSET")]
    kernel: Option<AssetName>,
    /// Initial file system
    #[arg(long, value_name = "ASSET")]
    initrd: Option<AssetName>,
    /// Words for the kernel
    #[arg(long, value_name = "TEXT")]
    kernel_args: Option<String>,
    /// Disk, the first one the root; :ro for read-only; as often as needed
    #[arg(long, value_name = "ASSET[:ro]", value_parser = disk)]
    disk: Vec<Storage>,
    /// Let the guest connect there, also where --no-internet is given; as often as needed
    #[arg(long, value_name = "NETWORK[,PROTOCOL[:PORT]]", value_parser = egress)]
    egress: Vec<Egress>,
    /// Let the guest connect nowhere but where --egress says
    #[arg(long)]
    no_internet: bool,
    /// Let a port of this host lead to one of the guest; a free one where HOST is left out; as often as needed
    #[arg(long, value_name = "[HOST]:GUEST[/PROTOCOL]", value_parser = port)]
    port: Vec<Port>,
    /// What happens when the guest ends by itself
    #[arg(long, value_enum)]
    restart: Option<Restart>,
    /// A label; as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Whose it is to be; only an operator says so
    #[arg(long, value_name = "NAME")]
    customer: Option<CustomerId>,
    /// JSON of a VM; '-' reads it from standard input
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same request under the same key makes one VM
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    /// Boot it
    #[arg(long)]
    boot: bool,
    /// Say nothing before it runs
    #[arg(long, requires = "boot")]
    wait: bool,
}

/// What happens when a guest ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Restart {
    /// Nothing
    Never,
    /// It is booted again when it failed
    OnFailure,
    /// It is booted again
    Always,
}

pub(super) async fn run(create: &Create, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let (spec, whose) = spec(create)?;
    let mut body = json!({ "config": spec });
    if let Some(id) = &create.id {
        body["vm_id"] = json!(id);
    }
    if let Some(customer) = create.customer.as_ref().or(whose.as_ref()) {
        body["customer_id"] = json!(customer);
    }
    let mut request = daemon.patient(Method::POST, "/v1/vms").json(&body);
    if let Some(key) = &create.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let mut answer: Value = daemon.read(request).await?;
    let id = VmView::of(&answer).vm_id;
    if create.boot {
        // Whatever happens to the rest, the VM is there.
        let path = format!("/v1/vms/{}/boot", segment(&id));
        answer = daemon.work(&path, &json!({})).await.map_err(|problem| made(&problem, &id))?;
    }
    if create.wait {
        let wait = life::Wait::until(&id, State::Running);
        answer = life::wait_for(&wait, daemon).await.map_err(|problem| made(&problem, &id))?;
    }
    if output.json {
        output.json(&answer);
    } else {
        output.line(format_args!("{id} is {}", VmView::of(&answer).short_state()));
    }
    Ok(())
}

fn made(problem: &Problem, id: &str) -> Problem {
    let detail = format!("{id} was made, and then: {}", problem.detail);
    let hint = problem
        .hint
        .clone()
        .unwrap_or_else(|| format!("look at it: cairn vm show {id}; remove it: cairn vm delete {id}").into());
    let status = problem.status;
    Problem::new(problem.kind(), &problem.code, detail).hint(hint).status(status)
}

/// What the file says, and the flags before it; and whose it is to be, where the file says that too.
fn spec(create: &Create) -> Result<(VmSpec, Option<CustomerId>), Problem> {
    let (mut spec, whose) = match &create.config {
        Some(path) => from_file(path)?,
        None => (VmSpec::default(), None),
    };
    let is_new = create.config.is_none();
    if let Some(vcpus) = create.vcpus.or(is_new.then_some(VCPUS)) {
        spec.cpu.vcpu_count = vcpus;
    }
    if let Some(memory) = create.memory.or(is_new.then_some(MEMORY)) {
        spec.memory.size_bytes = memory;
    }
    if let Some(kernel) = &create.kernel {
        spec.boot.kernel_path = Some(kernel.clone());
    }
    if let Some(initrd) = &create.initrd {
        spec.boot.initrd_path = Some(initrd.clone());
    }
    if let Some(words) = &create.kernel_args {
        spec.boot.kernel_args.clone_from(words);
    }
    if !create.disk.is_empty() {
        spec.storage.clone_from(&create.disk);
    }
    if create.no_internet || !create.egress.is_empty() || !create.port.is_empty() {
        let mut interface = spec.interface();
        interface.egress_internet &= !create.no_internet;
        interface.egress.extend(create.egress.iter().cloned());
        interface.ports.extend(create.port.iter().cloned());
        spec.network = vec![interface];
    }
    if let Some(restart) = create.restart {
        spec.restart_policy = match restart {
            Restart::Never => RestartPolicy::Never,
            Restart::OnFailure => RestartPolicy::OnFailure,
            Restart::Always => RestartPolicy::Always,
        };
    }
    spec.metadata.extend(create.label.iter().cloned());
    Ok((spec, whose))
}

/// As `POST /v1/vms` takes it: bare, under `config`, or an item of a list, in which an operator sees whose it is.
fn from_file(path: &Path) -> Result<(VmSpec, Option<CustomerId>), Problem> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().take(1 << 20).read_to_string(&mut text);
        read.map_err(|error| usage(format!("cannot read standard input: {error}")))?;
        text
    } else {
        read_text(path)?
    };
    let wrong = |error: serde_json::Error| usage(format!("{}: {error}", path.display()));
    let mut value: Value = serde_json::from_str(&text).map_err(wrong)?;
    let mut config = value.get_mut("config").map(Value::take).unwrap_or(value);
    let whose = config.as_object_mut().and_then(|config| config.remove("customer_id"));
    let whose = whose.map(serde_json::from_value).transpose().map_err(wrong)?;
    Ok((serde_json::from_value(config).map_err(wrong)?, whose))
}

fn memory(text: &str) -> Result<i64, String> {
    i64::try_from(settings::parse_size(text)?).map_err(|_| "this size is too large".to_owned())
}

fn disk(text: &str) -> Result<Storage, String> {
    let (name, read_only) = match text.strip_suffix(":ro") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let path = name.parse::<AssetName>().map_err(|error| error.to_string())?;
    Ok(Storage { path: Some(path), read_only, ..Storage::default() })
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("{text:?} is neither tcp nor udp")),
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is no port"))
}

fn egress(text: &str) -> Result<Egress, String> {
    let (to, rest) = text.split_once(',').map_or((text, None), |(to, rest)| (to, Some(rest)));
    let address = || to.parse::<IpAddr>().map(IpNet::from);
    let to: IpNet = to.parse().or_else(|_| address()).map_err(|_| format!("{to:?} is neither address nor network"))?;
    let Some(rest) = rest else { return Ok(Egress { to, protocol: None, port: None }) };
    let (word, port) = rest.split_once(':').map_or((rest, None), |(word, port)| (word, Some(port)));
    Ok(Egress { to, protocol: Some(protocol(word)?), port: port.map(number).transpose()? })
}

fn port(text: &str) -> Result<Port, String> {
    let (ports, word) = text.split_once('/').map_or((text, None), |(ports, word)| (ports, Some(word)));
    let wrong = || format!("{text:?}: [HOST]:GUEST[/PROTOCOL] was expected, for example 8080:80/tcp");
    let (host, guest) = ports.split_once(':').ok_or_else(wrong)?;
    let host_port = if host.is_empty() { 0 } else { number(host)? };
    Ok(Port { host_port, guest_port: number(guest)?, protocol: word.map(protocol).transpose()?.unwrap_or_default() })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: KEY=VALUE was expected"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Words {
        #[command(flatten)]
        create: Create,
    }

    fn spec_of(words: &[&str]) -> Result<Value, String> {
        let words = Words::try_parse_from(["create"].iter().chain(words)).map_err(|error| error.to_string())?;
        let (spec, _) = spec(&words.create).map_err(|problem| problem.detail)?;
        assert_eq!(spec.check(), [], "{words:?}", words = words.create);
        serde_json::to_value(spec).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_make_a_vm() {
        let least = json!({ "cpu": { "vcpu_count": 1 }, "memory": { "size_bytes": 268_435_456 } });
        assert_eq!(spec_of(&[]).unwrap(), least);
        let words = "web --vcpus 2 --memory 1GiB --kernel vmlinux --disk root --disk tools:ro --port 8080:80 --port :53/udp \
            --egress 192.0.2.7,tcp:443 --egress 2001:db8::/32 --no-internet --restart on-failure --label a=b=c";
        let words: Vec<_> = words.split_whitespace().collect();
        insta::assert_snapshot!(serde_json::to_string_pretty(&spec_of(&words).unwrap()).unwrap());
    }

    #[test]
    fn flags_go_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.json");
        let item = json!({ "vm_id": "old", "state": "VM_STATE_RUNNING",
            "config": { "customer_id": "acme", "cpu": { "vcpu_count": 4 }, "memory": { "size_bytes": 134_217_728 }, "storage": [{ "path": "a" }] } });
        std::fs::write(&path, item.to_string()).unwrap();
        let path = path.to_str().unwrap();
        let spec = spec_of(&["--config", path, "--memory", "256MiB"]).unwrap();
        assert_eq!(spec["cpu"]["vcpu_count"], 4);
        assert_eq!((&spec["memory"]["size_bytes"], &spec["storage"][0]["path"]), (&json!(268_435_456), &json!("a")));
        std::fs::write(path, r#"{"cpus": 1}"#).unwrap();
        assert!(spec_of(&["--config", path]).unwrap_err().contains("unknown field `cpus`"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            &["--memory", "much"][..],
            &["--disk", "/etc/shadow"],
            &["--disk", "../x:ro"],
            &["--port", "80"],
            &["--port", "80:http"],
            &["--port", "80:80/icmp"],
            &["--egress", "example.org"],
            &["--egress", "192.0.2.1,443"],
            &["--kernel", "/boot/vmlinuz"],
            &["--label", "x"],
            &["a/b"],
            &["--wait"],
        ] {
            assert!(spec_of(words).is_err(), "{words:?}");
        }
    }
}
