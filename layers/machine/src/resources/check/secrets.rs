//! Who may use which Secret.

use kube::core::ObjectMeta;

use super::{Finding, Weight};
use crate::resources::ALLOWED_NAMESPACES;

/// Whether an object of a namespace may use a Secret: it is of the same namespace, or the Secret itself names that
/// namespace in its annotation. Whoever may write a Machine could otherwise have any Secret of the cluster sent to a host
/// of their choice.
///
/// # Errors
/// The finding, for the field that refers to the Secret, whose metadata is `secret`.
pub fn may_use(namespace: &str, field: &str, secret: &ObjectMeta) -> Result<(), Finding> {
    let own = secret.namespace.as_deref().unwrap_or("default");
    let allowed = secret.annotations.iter().flatten().find(|(key, _)| *key == ALLOWED_NAMESPACES);
    let named = allowed.is_some_and(|(_, names)| names.split(',').any(|name| name.trim() == namespace));
    if own == namespace || named {
        return Ok(());
    }
    let name = secret.name.as_deref().unwrap_or_default();
    Err(Finding {
        field: field.to_owned(),
        reason: format!("the Secret {own}/{name} may not be used from the namespace {namespace}"),
        hint: Some(format!("whoever owns the Secret can annotate it: {ALLOWED_NAMESPACES}: {namespace}")),
        weight: Weight::Error,
    })
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED_NAMESPACES, ObjectMeta, may_use};

    fn secret(allowed: Option<&str>) -> ObjectMeta {
        let annotations = allowed.map(|names| [(ALLOWED_NAMESPACES.to_owned(), names.to_owned())].into());
        ObjectMeta { name: Some("key".into()), namespace: Some("keys".into()), annotations, ..ObjectMeta::default() }
    }

    #[test]
    fn only_the_secret_itself_opens_another_namespace() {
        assert!(may_use("keys", "f", &secret(None)).is_ok());
        assert!(may_use("team-a", "f", &secret(Some("team-b, team-a"))).is_ok());
        // Neither a part of a name nor everything.
        for allowed in [None, Some(""), Some("team"), Some("*"), Some("team-ab")] {
            let finding = may_use("team-a", "spec.sshKeySecretRef", &secret(allowed)).unwrap_err();
            assert!(finding.field == "spec.sshKeySecretRef" && finding.reason.contains("keys/key"), "{allowed:?}");
        }
    }
}
