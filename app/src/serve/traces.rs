//! Where spans go, from the settings of the role.

use observe::traces::{Collector, TraceSettings};
use settings::{Origin, Resolved, SettingsError};

use crate::arguments::{Called, Role};

/// What is sent, or nothing when that is switched off. Metald has names of its own for it, which the vm role of `cairn`
/// takes too where they are set.
///
/// # Errors
/// A value cannot be used; also one that is not needed, so that it does not wait for the day on which it is.
pub(crate) fn settings(
    called: Called,
    role: Role,
    resolved: &Resolved,
) -> Result<Option<TraceSettings>, SettingsError> {
    let name = |general: &'static str, own: &'static str| {
        let is_set = !matches!(resolved.origin(own), Origin::Unset | Origin::BuiltIn);
        if role == Role::Vm && (called == Called::Metald || is_set) { own } else { general }
    };
    let rate = name("otel_sampling_rate", "vm_otel_sampling_rate");
    let sampling_rate: f64 = resolved.parse(rate)?;
    if !(0.0..=1.0).contains(&sampling_rate) {
        return Err(resolved.wrong(rate, "0 to 1 was expected"));
    }
    let collector: Collector = resolved.parse(name("otel_endpoint", "vm_otel_endpoint"))?;
    let is_on = resolved.boolean(name("otel_enabled", "vm_otel_enabled"))?;
    let version = resolved.get(name("otel_service_version", "vm_otel_service_version"));
    let settings = TraceSettings {
        collector,
        sampling_rate,
        service_name: resolved.require(name("otel_service_name", "vm_otel_service_name"))?.to_owned(),
        service_version: version.unwrap_or(env!("CARGO_PKG_VERSION")).to_owned(),
        service_namespace: if called == Called::Metald { "unkey" } else { "cairn" }.to_owned(),
        host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    Ok(is_on.then_some(settings))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use settings::Resolver;

    use super::*;
    use crate::config::TABLES;

    fn of(called: Called, role: Role, values: &[(&str, &str)]) -> Result<Option<TraceSettings>, SettingsError> {
        let values: BTreeMap<_, _> = values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        settings(called, role, &Resolver::new(TABLES).environment(&values)?.resolve())
    }

    const ON: (&str, &str) = ("UNKEY_METALD_OTEL_ENABLED", "true");

    #[test]
    fn metalds_names_are_those_of_its_guide() {
        assert_eq!(of(Called::Metald, Role::Vm, &[("OTEL_ENABLED", "true")]).unwrap(), None);
        let traces = of(Called::Metald, Role::Vm, &[ON]).unwrap().unwrap();
        assert_eq!(traces.collector, "localhost:4318".parse().unwrap());
        assert_eq!((traces.service_name.as_str(), traces.service_namespace.as_str()), ("metald", "unkey"));
        assert_eq!((traces.service_version.as_str(), traces.sampling_rate), (env!("CARGO_PKG_VERSION"), 1.0));
        let more = [
            ON,
            ("UNKEY_METALD_OTEL_ENDPOINT", "https://otel:4318"),
            ("UNKEY_METALD_OTEL_SAMPLING_RATE", "0.1"),
            ("UNKEY_METALD_OTEL_SERVICE_NAME", "metald-7"),
            ("UNKEY_METALD_OTEL_SERVICE_VERSION", "9"),
        ];
        let traces = of(Called::Metald, Role::Vm, &more).unwrap().unwrap();
        assert_eq!(traces.collector.to_string(), "https://otel:4318/v1/traces");
        assert_eq!((&*traces.service_name, &*traces.service_version, traces.sampling_rate), ("metald-7", "9", 0.1));
    }

    #[test]
    fn every_role_has_them() {
        let general = [("OTEL_ENABLED", "true"), ("OTEL_ENDPOINT", "otel:1"), ("OTEL_SAMPLING_RATE", "0.5")];
        for role in [Role::Metal, Role::Registry, Role::Vm] {
            let traces = of(Called::Cairn, role, &general).unwrap().unwrap();
            assert_eq!(traces.collector, "otel:1".parse().unwrap());
            assert_eq!((&*traces.service_name, &*traces.service_namespace), ("cairn", "cairn"));
        }
        assert!(of(Called::Cairn, Role::Vm, &[ON]).unwrap().is_some(), "the unit's file serves both names");
        assert_eq!(of(Called::Cairn, Role::Metal, &[ON]).unwrap(), None);
    }

    #[test]
    fn a_wrong_value_is_named_also_while_it_is_off() {
        for (name, value) in [("OTEL_SAMPLING_RATE", "2"), ("OTEL_ENDPOINT", "grpc://x"), ("OTEL_ENABLED", "perhaps")] {
            let error = of(Called::Cairn, Role::Metal, &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(&format!("(environment {name})")), "{error}");
        }
    }
}
