//! What is shipped for a cluster: that it is what the program writes, and that it grants and allows no more than it should.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use machine::manifests::{Arguments, IMAGE, NAMESPACE};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::process::{exists, run};

/// A file or directory below `deploy/nio`.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nio").join(name)
}

/// The objects of a file below `deploy/nio`.
pub(crate) fn objects(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(name)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn arguments() -> Arguments {
    Arguments { output: None, namespace: NAMESPACE.to_owned(), image: IMAGE.to_owned() }
}

fn object(file: &str, kind: &str, name: &str) -> Value {
    let found = objects(file).into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("{file} has no {kind} {name}"))
}

/// All files below a directory, by their paths from there.
fn files(directory: &std::path::Path, prefix: &str, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), &format!("{name}/"), into);
        } else {
            into.insert(name);
        }
    }
}

#[test]
fn what_is_checked_in_is_what_the_program_writes() {
    let manifests = arguments().render().unwrap();
    for manifest in &manifests {
        let file = path(&manifest.path);
        if std::env::var_os("CAIRN_GOLDENS").is_some_and(|word| word == "write") {
            fs::write(&file, &manifest.text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert!(golden == manifest.text, "{} is not what the program writes", file.display());
    }
    let mut there = BTreeSet::new();
    files(&path(""), "", &mut there);
    assert_eq!(there, manifests.into_iter().map(|manifest| manifest.path).collect());
    // What the guide names.
    for name in [
        "crds/",
        "deployment.yaml",
        "monitoring/service-monitor.yaml",
        "monitoring/prometheus-rules.yaml",
        "monitoring/grafana/nio-operator-dashboard.json",
    ] {
        assert!(path(name).exists(), "{name}");
    }
}

#[test]
fn everything_is_written_for_another_namespace_and_image() {
    let directory = TempDir::new().unwrap();
    let output = Some(directory.path().join("nio"));
    let ours = Arguments { output, namespace: "machines".into(), image: "registry.example.org/nio@sha256:0".into() };
    let told = ours.run().unwrap();
    assert!(told.lines().count() == 21 && told.lines().all(|line| fs::exists(line).unwrap()), "{told}");
    for line in told.lines().filter(|line| !line.contains("/container/")) {
        let text = fs::read_to_string(line).unwrap();
        assert!(!text.contains(NAMESPACE) && !text.contains("image: nio-operator"), "{line}");
    }
    let deployment = fs::read_to_string(directory.path().join("nio/deployment.yaml")).unwrap();
    assert!(deployment.contains("        image: registry.example.org/nio@sha256:0\n"));
    for namespace in ["", "a b", "A", "a\nb", "a.b"] {
        assert!(Arguments { namespace: namespace.into(), ..arguments() }.render().is_err(), "{namespace:?}");
    }
    for image in ["", "a b", "a\nb: c", "-x", "a'"] {
        assert!(Arguments { image: image.into(), ..arguments() }.render().is_err(), "{image:?}");
    }
}

#[test]
fn what_is_printed_can_be_applied() {
    let printed: Vec<Value> = serde_saphyr::from_multiple(&arguments().run().unwrap()).unwrap();
    let kinds: Vec<&str> = printed.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(&kinds[..3], ["Namespace", "CustomResourceDefinition", "CustomResourceDefinition"]);
    assert_eq!(&kinds[kinds.len() - 2..], ["NetworkPolicy", "PodDisruptionBudget"]);
    assert!(!kinds.contains(&"PrometheusRule"));
}

#[test]
fn every_manifest_is_an_object_with_a_place() {
    for manifest in arguments().render().unwrap().iter().filter(|manifest| manifest.path.ends_with(".yaml")) {
        let cluster = ["Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"];
        for object in objects(&manifest.path) {
            let kind = object["kind"].as_str().unwrap();
            assert!(object["apiVersion"].is_string());
            if kind == "Kustomization" {
                continue;
            }
            assert!(object["metadata"]["name"].is_string(), "{} {kind}", manifest.path);
            // A tenant's namespace is named by whoever applies it.
            if !cluster.contains(&kind) && !manifest.path.contains("tenant") {
                assert_eq!(object["metadata"]["namespace"], NAMESPACE, "{} {kind}", manifest.path);
            }
        }
    }
}

/// What a role grants, as `group/resource verb`, with `@NAME` where it is limited to names.
fn grants(role: &Value) -> BTreeSet<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut grants = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names = list(&rule["resourceNames"]).join(",");
        let at = if names.is_empty() { names } else { format!("@{names}") };
        for (group, resource) in list(&rule["apiGroups"])
            .iter()
            .flat_map(|g| list(&rule["resources"]).into_iter().map(move |r| (g.clone(), r)))
        {
            grants.extend(list(&rule["verbs"]).iter().map(|verb| format!("{group}/{resource} {verb}{at}")));
        }
        assert!(rule["nonResourceURLs"].is_null());
    }
    grants
}

#[test]
fn roles_grant_what_is_needed_and_nothing_else() {
    let ours = |extra: &[&str]| -> BTreeSet<String> {
        let verbs = ["get", "list", "watch", "patch"];
        let kinds = ["machines", "nixosconfigurations"];
        let objects = kinds.iter().flat_map(|kind| verbs.map(|verb| format!("nio.homystack.com/{kind} {verb}")));
        let status = kinds.map(|kind| format!("nio.homystack.com/{kind}/status patch"));
        let events = ["create", "patch"].map(|verb| format!("events.k8s.io/events {verb}"));
        let extra = extra.iter().map(|grant| (*grant).to_owned());
        objects.chain(status).chain(events).chain(extra).collect()
    };
    let names = "machines.nio.homystack.com,nixosconfigurations.nio.homystack.com";
    let definitions = format!("apiextensions.k8s.io/customresourcedefinitions get@{names}");
    assert_eq!(grants(&object("deployment.yaml", "ClusterRole", "nixos-operator")), ours(&[&definitions]));
    assert_eq!(
        grants(&object("deployment.yaml", "ClusterRole", "nixos-operator-secrets")),
        ["/secrets get".to_owned()].into()
    );
    let lease = ["create", "get@nixos-operator", "update@nixos-operator", "patch@nixos-operator"];
    assert_eq!(
        grants(&object("deployment.yaml", "Role", "nixos-operator-leader")),
        lease.map(|verb| format!("coordination.k8s.io/leases {verb}")).into()
    );
    assert_eq!(
        grants(&object("overlays/namespaces/tenant/role.yaml", "Role", "nixos-operator")),
        ours(&["/secrets get"])
    );
}

#[test]
fn nobody_gets_a_wildcard_or_secrets_of_the_whole_cluster() {
    let mut roles = 0;
    for manifest in arguments().render().unwrap().iter().filter(|manifest| manifest.path.ends_with(".yaml")) {
        for object in objects(&manifest.path) {
            let kind = object["kind"].as_str().unwrap();
            if kind.ends_with("Role") {
                roles += 1;
                let grants = grants(&object);
                assert!(!grants.iter().any(|grant| grant.contains('*')), "{grants:?}");
                let secrets = grants.iter().filter(|grant| grant.starts_with("/secrets"));
                assert!(secrets.into_iter().all(|grant| grant == "/secrets get"), "{grants:?}");
            }
            if kind == "ClusterRoleBinding" {
                assert_eq!(object["roleRef"]["name"], "nixos-operator");
            }
            if kind.ends_with("RoleBinding") {
                assert_eq!(
                    object["subjects"],
                    json!([{"kind": "ServiceAccount", "name": "nixos-operator", "namespace": NAMESPACE}])
                );
            }
        }
    }
    // Those of deployment.yaml and its two parts, and that of a tenant.
    assert_eq!(roles, 2 * 3 + 1);
    let everywhere = grants(&object("deployment.yaml", "ClusterRole", "nixos-operator"));
    assert!(!everywhere.iter().any(|grant| grant.contains("secrets")));
}

#[test]
fn the_pod_is_as_the_guide_says_and_restricted() {
    let deployment = object("deployment.yaml", "Deployment", "nixos-operator");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // What `enforce: restricted` asks for.
    let security = &pod["securityContext"];
    assert_eq!(
        (&security["runAsNonRoot"], &security["seccompProfile"]["type"]),
        (&json!(true), &json!("RuntimeDefault"))
    );
    assert_eq!((&security["runAsUser"], &security["runAsGroup"]), (&json!(1000), &json!(1000)));
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    for word in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[word].is_null());
    }
    let allowed = ["emptyDir", "secret"];
    for volume in pod["volumes"].as_array().unwrap() {
        assert!(allowed.iter().any(|kind| volume[kind].is_object()), "{volume}");
    }
    // The key may be missing, and whoever runs the program can read it: root's, with the group of fsGroup.
    let key = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "ssh-key").unwrap();
    assert_eq!(key["secret"], json!({"secretName": "nixos-ssh-key", "optional": true, "defaultMode": 0o440}));
    assert_eq!(security["fsGroup"], 1000);
    assert!(container["env"].as_array().unwrap().contains(&json!(
        {"name": "SSH_KEY_PATH", "value": "/etc/ssh-key/ssh-privatekey"}
    )));
    assert_eq!((&container["name"], &container["image"]), (&json!("operator"), &json!(IMAGE)));
    assert_eq!((&deployment["spec"]["replicas"], &pod["terminationGracePeriodSeconds"]), (&json!(1), &json!(300)));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
    );
    let recommended =
        json!({"requests": {"memory": "256Mi", "cpu": "250m"}, "limits": {"memory": "1Gi", "cpu": "1000m"}});
    assert_eq!(container["resources"], recommended);
    // Directories that are written to are volumes.
    let mounts: BTreeSet<&str> =
        container["volumeMounts"].as_array().unwrap().iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    assert_eq!(mounts, ["/etc/ssh-key", "/nix", "/tmp"].into());
}

#[test]
fn services_probes_and_budget_find_the_pod() {
    let deployment = object("deployment.yaml", "Deployment", "nixos-operator");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(labels, &json!({"app": "nixos-operator"}));
    for (name, port, endpoint) in
        [("nixos-operator-metrics", 8000, "metrics"), ("nixos-operator-health", 8080, "health")]
    {
        let service = object("deployment.yaml", "Service", name);
        assert_eq!(&service["spec"]["selector"], labels);
        assert_eq!(service["spec"]["ports"], json!([{"name": endpoint, "port": port, "targetPort": endpoint}]));
        assert!(container["ports"].as_array().unwrap().contains(&json!({"name": endpoint, "containerPort": port})));
    }
    let probe = |name: &str| {
        let probe = &container[name];
        let keys = ["initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold"];
        (probe["httpGet"]["path"].clone(), keys.map(|key| probe[key].as_u64().unwrap()))
    };
    assert_eq!(probe("livenessProbe"), (json!("/live"), [30, 10, 5, 3]));
    assert_eq!(probe("readinessProbe"), (json!("/ready"), [10, 5, 3, 3]));
    let monitor = object("monitoring/service-monitor.yaml", "ServiceMonitor", "nixos-operator");
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!((&endpoint["honorLabels"], &endpoint["port"]), (&json!(true), &json!("metrics")));
    assert!(endpoint["relabelings"].is_null() && endpoint["metricRelabelings"].is_null());
    let service = object("deployment.yaml", "Service", "nixos-operator-metrics");
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"]);
    let budget = object("operator/pod-disruption-budget.yaml", "PodDisruptionBudget", "nixos-operator");
    assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
}

/// Whether a policy lets a packet to a port of an address out.
fn lets_out(policy: &Value, protocol: &str, port: u64, address: &str) -> bool {
    let inside = |cidr: &str| match (cidr, address.contains(':')) {
        ("0.0.0.0/0", v6) => !v6,
        ("::/0", v6) => v6,
        ("169.254.0.0/16", _) => address.starts_with("169.254."),
        (other, _) => other.split('/').next() == Some(address),
    };
    policy["spec"]["egress"].as_array().unwrap().iter().any(|rule| {
        let ports = rule["ports"].as_array().unwrap();
        let port = ports.iter().any(|entry| entry["protocol"] == protocol && entry["port"] == port);
        let to = rule["to"].as_array().is_none_or(|blocks| {
            blocks.iter().any(|block| {
                let block = &block["ipBlock"];
                let except = block["except"].as_array().into_iter().flatten();
                inside(block["cidr"].as_str().unwrap()) && !except.into_iter().any(|one| inside(one.as_str().unwrap()))
            })
        });
        port && to
    })
}

#[test]
fn the_network_policy_lets_out_what_is_needed() {
    let policy = object("operator/network-policy.yaml", "NetworkPolicy", "nixos-operator-netpol");
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    for (what, protocol, port, address, expected) in [
        ("DNS of the cluster", "UDP", 53, "10.96.0.10", true),
        ("DNS on the node", "TCP", 53, "169.254.20.10", true),
        ("API server by its Service", "TCP", 443, "10.96.0.1", true),
        ("API server itself", "TCP", 6443, "192.0.2.10", true),
        ("Git and caches", "TCP", 443, "2001:db8::1", true),
        ("a cache without TLS", "TCP", 80, "192.0.2.20", true),
        ("machines and Git", "TCP", 22, "192.0.2.30", true),
        ("credentials of a cloud", "TCP", 80, "169.254.169.254", false),
        ("credentials of a cloud", "TCP", 80, "fd00:ec2::254", false),
        ("a database", "TCP", 5432, "10.0.0.5", false),
        ("etcd", "TCP", 2379, "192.0.2.10", false),
        ("kubelet", "TCP", 10250, "192.0.2.10", false),
    ] {
        assert_eq!(lets_out(&policy, protocol, port, address), expected, "{what}");
    }
    let ingress = policy["spec"]["ingress"].as_array().unwrap();
    assert_eq!(ingress.len(), 1);
    let from = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    assert_eq!(ingress[0]["from"], from);
    assert_eq!(ingress[0]["ports"], json!([{"protocol": "TCP", "port": 8000}, {"protocol": "TCP", "port": 8080}]));
}

#[test]
fn kustomize_builds_base_and_overlay() {
    if !exists("kustomize") {
        eprintln!("NOT RUN: kustomize_builds_base_and_overlay: kustomize is missing");
        return;
    }
    let build = |directory: &str| -> Vec<Value> {
        let text = run(Command::new("kustomize").arg("build").arg(path(directory))).unwrap();
        serde_saphyr::from_multiple(&text).unwrap()
    };
    let count = |objects: &[Value], kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    let base = build("");
    assert_eq!(
        ["ClusterRole", "ClusterRoleBinding", "RoleBinding", "Role"].map(|kind| count(&base, kind)),
        [2, 1, 2, 1]
    );
    let overlay = build("overlays/namespaces");
    let roles = ["ClusterRole", "ClusterRoleBinding", "RoleBinding", "Role"].map(|kind| count(&overlay, kind));
    assert_eq!(roles, [0, 0, 2, 2]);
    let binding =
        overlay.iter().find(|object| object["kind"] == "RoleBinding" && object["metadata"]["namespace"] == "default");
    assert_eq!(binding.unwrap()["subjects"][0]["namespace"], NAMESPACE);
    let deployment = overlay.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let environment = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let environment = environment.as_array().unwrap();
    assert!(
        environment.contains(&json!({"name": "NIO_WATCH_NAMESPACES", "value": "default"})) && environment.len() == 5
    );
}

/// The YAML fragments of the guide, and what of them our files have.
#[test]
fn the_guides_fragments_fit() {
    let mount = "
spec:
  template:
    spec:
      volumes:
      - name: ssh-key
        secret:
          secretName: nixos-ssh-key
          defaultMode: 0600
      containers:
      - name: operator
        volumeMounts:
        - name: ssh-key
          mountPath: /etc/ssh-key
          readOnly: true
        env:
        - name: SSH_KEY_PATH
          value: /etc/ssh-key/ssh-privatekey
";
    let fragment: Value = serde_saphyr::from_str(mount).unwrap();
    let deployment = object("deployment.yaml", "Deployment", "nixos-operator");
    let (theirs, ours) = (&fragment["spec"]["template"]["spec"], &deployment["spec"]["template"]["spec"]);
    let named = |list: &Value, name: &str| {
        list.as_array().unwrap().iter().find(|entry| entry["name"] == name).cloned().unwrap_or_default()
    };
    // A merge by names changes the mode and nothing else.
    assert_eq!(
        named(&ours["volumes"], "ssh-key")["secret"]["secretName"],
        theirs["volumes"][0]["secret"]["secretName"]
    );
    let container = &ours["containers"][0];
    assert_eq!(container["name"], theirs["containers"][0]["name"]);
    assert_eq!(named(&container["volumeMounts"], "ssh-key"), theirs["containers"][0]["volumeMounts"][0]);
    assert_eq!(named(&container["env"], "SSH_KEY_PATH"), theirs["containers"][0]["env"][0]);
    // Every rule of the guide's minimum that is still needed is there; events moved to their own group.
    let minimum = "
rules:
- {apiGroups: [nio.homystack.com], resources: [machines, nixosconfigurations], verbs: [get, list, watch, patch]}
- {apiGroups: [nio.homystack.com], resources: [machines/status, nixosconfigurations/status], verbs: [patch]}
";
    let minimum = grants(&serde_saphyr::from_str(minimum).unwrap());
    assert!(minimum.is_subset(&grants(&object("deployment.yaml", "ClusterRole", "nixos-operator"))));
}
