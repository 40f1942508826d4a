//! What was probably meant by a key that nobody knows.

/// Likeness from which a name is suggested, as settings do it.
const ALIKE: f64 = 0.6;

/// The name that serde's message about an unknown field or variant probably means: "unknown field `vcpus`, expected one of
/// `vcpu_count`, `features`".
pub(crate) fn in_message(message: &str) -> Option<&str> {
    let about = message.find("unknown field ").or_else(|| message.find("unknown variant "))?;
    let mut names = message[about..].split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    closest(unknown, names)
}

/// The name that is most like `unknown`, whatever its case and its separators; of two spellings of one name the one that is
/// more like it as it stands.
fn closest<'n>(unknown: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', '.'], "");
    let wanted = plain(unknown);
    let likeness = |name: &&str| {
        let whole = strsim::normalized_damerau_levenshtein(&wanted, &plain(name));
        (whole, strsim::normalized_damerau_levenshtein(unknown, name))
    };
    names
        .map(|name| (likeness(&name), name))
        .filter(|((likeness, _), _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let expected = "expected one of `vcpuCount`, `vcpu_count`, `max_vcpu_count`";
        for (unknown, meant) in [
            ("vcpu_cout", Some("vcpu_count")),
            ("VcpuCount", Some("vcpuCount")),
            ("max-vcpu-count", Some("max_vcpu_count")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(in_message(&format!("unknown field `{unknown}`, {expected}")), meant, "{unknown}");
        }
        assert_eq!(in_message("unknown field `memry`, expected `cpu` or `memory`"), Some("memory"));
        assert_eq!(in_message("unknown variant `kernal`, expected one of `kernel`, `disk`"), Some("kernel"));
        assert_eq!(in_message("unknown field `x`, there are no fields"), None);
        assert_eq!(in_message("missing field `cpu`"), None);
    }
}
