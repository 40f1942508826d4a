use super::*;
use crate::model::Failure;

fn scrape(registry: &Registry) -> String {
    registry.render(None).1
}

#[test]
fn everything_that_the_guide_watches_is_there_from_the_start() {
    let mut registry = Registry::new();
    VmMetrics::register(&mut registry, false, &[("GET", "/v1/vms")]);
    let text = scrape(&registry);
    for line in [
        "unkey_metald_active_vms 0",
        "unkey_metald_vm_boot_duration_seconds_bucket{le=\"0.125\",backend=\"firecracker\"} 0",
        "unkey_metald_backend_errors_total{backend=\"qemu\",error_type=\"vm_crashed\"} 0",
        "unkey_metald_api_request_duration_seconds_count{route=\"/v1/vms\",method=\"GET\",code=\"200\"} 0",
        "unkey_metald_vm_boot_requests_total 0",
        "unkey_metald_vm_shutdown_failures_total{backend=\"qemu\",error_type=\"other\"} 0",
        "unkey_metald_process_terminations_total{backend=\"firecracker\",exit_code=\"148\"} 0",
        "go_goroutines 0.0",
        "metald_bridge_capacity_ratio 0.0",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("customer_id"));
}

#[test]
fn customers_are_told_apart_only_when_asked_for_and_go_when_they_have_nothing() {
    let count = |names: &[(&str, u64)]| {
        names.iter().map(|(name, count)| (name.parse().unwrap(), *count)).collect::<BTreeMap<CustomerId, u64>>()
    };
    let mut registry = Registry::new();
    let metrics = VmMetrics::register(&mut registry, true, &[]);
    let shown = |registry: &Registry| -> Vec<String> {
        let text = scrape(registry);
        let mut lines: Vec<_> =
            text.lines().filter(|line| line.starts_with("unkey_metald_active_vms")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(shown(&registry), ["unkey_metald_active_vms{customer_id=\"\"} 0"]);
    metrics.set_active(&count(&[("a", 2), ("b", 1)]));
    assert_eq!(
        shown(&registry),
        ["unkey_metald_active_vms{customer_id=\"a\"} 2", "unkey_metald_active_vms{customer_id=\"b\"} 1"]
    );
    metrics.set_active(&count(&[("b", 3)]));
    assert_eq!(shown(&registry), ["unkey_metald_active_vms{customer_id=\"b\"} 3"]);
    metrics.set_active(&count(&[]));
    assert_eq!(shown(&registry), ["unkey_metald_active_vms{customer_id=\"\"} 0"]);

    let mut registry = Registry::new();
    let metrics = VmMetrics::register(&mut registry, false, &[]);
    metrics.set_active(&count(&[("a", 2), ("b", 1)]));
    assert_eq!(shown(&registry), ["unkey_metald_active_vms 3"]);
}

#[test]
fn labels_are_bounded() {
    let mut registry = Registry::new();
    let metrics = VmMetrics::register(&mut registry, false, &[]);
    let lines = scrape(&registry).lines().count();
    metrics.failed(Kind::Boot, Some(Backend::Qemu), "a word of somebody");
    metrics.backend_error(Some(Backend::Qemu), "a word of somebody");
    metrics.terminated(Backend::Qemu, Some(77));
    metrics.terminated(Backend::Qemu, Some(137));
    metrics.terminated(Backend::Qemu, None);
    metrics.set_strays(["namespace", "a word of somebody"]);
    metrics.set_addresses(1, 4);
    metrics.failed(Kind::Ended, None, "x");
    let text = scrape(&registry);
    assert_eq!(text.lines().count(), lines);
    assert!(text.contains("metald_bridge_capacity_ratio 0.25"), "{text}");
    assert!(text.contains("unkey_metald_strays{kind=\"other\"} 1"));
}

#[test]
fn what_owners_tell_is_counted() {
    let mut registry = Registry::new();
    let metrics = VmMetrics::register(&mut registry, false, &[]);
    let backend = Some(Backend::Firecracker);
    let over = |kind, code: Option<&str>| {
        let failure = code.map(|code| Failure::plain(code, "x"));
        let took = Duration::from_millis(200);
        metrics.happened(&Happening::Over { kind, backend, failure: failure.as_ref(), took, forced: true });
    };
    metrics.happened(&Happening::Begun { kind: Kind::Boot });
    let (kind, took) = (Kind::Boot, Duration::from_millis(90));
    metrics.happened(&Happening::Running { kind, backend: Backend::Firecracker, took });
    over(Kind::Boot, None);
    metrics.happened(&Happening::Refused { step: Step::Launch, backend, code: errors::HYPERVISOR });
    over(Kind::Boot, Some(errors::HYPERVISOR));
    metrics.happened(&Happening::Exited { backend, code: Some(148) });
    over(Kind::Ended, Some(errors::VM_CRASHED));
    over(Kind::Ended, Some(errors::VM_PANICKED));
    over(Kind::Stop, None);
    let text = scrape(&registry);
    for line in [
        "unkey_metald_vm_boot_requests_total 1",
        "unkey_metald_vm_boot_duration_seconds_count{backend=\"firecracker\"} 1",
        "unkey_metald_vm_step_failures_total{step=\"launch\"} 1",
        "unkey_metald_vm_shutdown_forced_total 1",
        "unkey_metald_vm_boot_success_total{backend=\"firecracker\"} 1",
        "unkey_metald_vm_boot_failures_total{backend=\"firecracker\",error_type=\"hypervisor\"} 1",
        "unkey_metald_vm_boot_duration_seconds_bucket{le=\"0.075\",backend=\"firecracker\"} 0",
        "unkey_metald_vm_boot_duration_seconds_bucket{le=\"0.1\",backend=\"firecracker\"} 1",
        "unkey_metald_backend_errors_total{backend=\"firecracker\",error_type=\"hypervisor\"} 1",
        "unkey_metald_backend_errors_total{backend=\"firecracker\",error_type=\"vm_crashed\"} 1",
        "unkey_metald_process_terminations_total{backend=\"firecracker\",exit_code=\"148\"} 1",
    ] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("vm_panicked"));
}
