//! `/api/v1/registries`: registries elsewhere.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_core::ErrorKind;
use secrecy::SecretString;
use serde::Deserialize;
use web::{Detail, Json, Problem};

use super::{Shared, not_found};
use crate::errors;
use crate::model::BmcTls;
use crate::pull_registry::{Account, PullRegistry, PullRegistryList, PullRegistryView, parse_host, password_purpose};

/// Body of `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutRegistry {
    username: Option<String>,
    /// Belongs to the user name. It is not kept from an earlier record.
    password: Option<SecretString>,
    ca_pem: Option<String>,
}

pub(super) async fn put(
    State(metal): Shared,
    Path(host): Path<String>,
    Json(body): Json<PutRegistry>,
) -> Result<(StatusCode, Json<PullRegistryView>), Problem> {
    let host = host_of(&host)?;
    let mut faults = Vec::new();
    let account = match (body.username.filter(|name| !name.is_empty()), body.password) {
        (Some(name), _) if name.contains(':') => {
            faults.push(Detail::at("/username", "pattern", "a user name has no ':'"));
            None
        }
        (Some(username), Some(password)) => {
            let sealed_password = metal.key.seal(&password_purpose(&host), &password);
            Some(Account { username, sealed_password })
        }
        (None, None) => None,
        (Some(_), None) => {
            faults.push(Detail::at("/password", "required", "a user name needs its password"));
            None
        }
        (None, Some(_)) => {
            faults.push(Detail::at("/username", "required", "a password needs its user name"));
            None
        }
    };
    if let Some(pem) = &body.ca_pem
        && (!pem.contains("-----BEGIN CERTIFICATE-----")
            || crate::adapters::tls::builder(&BmcTls::Ca { pem: pem.clone() }).is_err())
    {
        faults.push(Detail::at("/ca_pem", "pattern", "one or more certificates in PEM were expected"));
    }
    if !faults.is_empty() {
        let detail = format!("the record of registry {host} has {} fault(s)", faults.len());
        return Err(Problem::new(ErrorKind::Invalid, errors::VALIDATION, detail).detail_list(faults));
    }
    let now = metal.clock.now();
    let known = metal.store.pull_registry(&host).await?.is_some();
    let registry = PullRegistry { host: host.clone(), account, ca_pem: body.ca_pem, created_at: now, updated_at: now };
    metal.store.put_pull_registry(&registry).await?;
    let stored = metal.store.pull_registry(&host).await?.ok_or_else(|| not_found("registry", &host))?;
    Ok((if known { StatusCode::OK } else { StatusCode::CREATED }, Json(stored.into())))
}

pub(super) async fn show(State(metal): Shared, Path(host): Path<String>) -> Result<Json<PullRegistryView>, Problem> {
    let host = host_of(&host)?;
    let registry = metal.store.pull_registry(&host).await?.ok_or_else(|| not_found("registry", &host))?;
    Ok(Json(registry.into()))
}

pub(super) async fn list(State(metal): Shared) -> Result<Json<PullRegistryList>, Problem> {
    let registries = metal.store.pull_registries().await?.into_iter().map(PullRegistryView::from).collect();
    Ok(Json(PullRegistryList { registries }))
}

pub(super) async fn remove(State(metal): Shared, Path(host): Path<String>) -> Result<StatusCode, Problem> {
    let host = host_of(&host)?;
    if metal.store.remove_pull_registry(&host).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(not_found("registry", &host))
    }
}

fn host_of(text: &str) -> Result<String, Problem> {
    parse_host(text).ok_or_else(|| {
        let detail = format!("{text:?} is no registry: host[:port] was expected, as it stands in oci_url");
        Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, detail)
    })
}
