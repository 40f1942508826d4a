//! `/api/v1/servers`.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use cairn_core::ErrorKind;
use recipe::network::Network;
use secrecy::SecretString;
use serde::Deserialize;
use web::{Detail, Json, Problem, Query};

use super::view::{ServerList, ServerView};
use super::{Shared, not_found};
use crate::context::Metal;
use crate::errors;
use crate::model::{BmcSpec, BmcTls, Overrides, Serial, Server, ServerSpec, Status};

/// Body of `PUT`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutServer {
    bmc: PutBmc,
    vendor: Option<String>,
    network: Option<Network>,
    #[serde(default)]
    overrides: Overrides,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutBmc {
    address: String,
    username: String,
    /// May be left out when the server is known and its address and judgement stay: the stored one is kept.
    password: Option<SecretString>,
    #[serde(default)]
    tls: BmcTls,
    system: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<u32>,
    cursor: Option<String>,
}

/// Entries on a page when nothing is said, and at most.
pub(super) const PAGE: (u32, u32) = (100, 1000);

pub(super) async fn put(
    State(metal): Shared,
    Path(serial): Path<String>,
    Json(body): Json<PutServer>,
) -> Result<(StatusCode, Json<ServerView>), Problem> {
    let serial = serial_of(&serial)?;
    let known = metal.store.server(&serial).await?;
    let mut faults = Vec::new();
    if let Err(message) = BmcSpec::url_of(&body.bmc.address) {
        faults.push(Detail::at("/bmc/address", "pattern", message));
    }
    if body.bmc.username.is_empty() {
        faults.push(Detail::at("/bmc/username", "required", "a user name is needed"));
    }
    if let Some(network) = &body.network {
        let at = |violation: recipe::Violation| {
            Detail::at(&format!("/network{}", violation.path), violation.code, violation.message)
        };
        faults.extend(network.violations().into_iter().map(at));
    }
    if let Some(vendor) = &body.vendor
        && redfish::Vendor::named(vendor).is_none()
    {
        let message =
            format!("{vendor:?} is none of idrac, ilo, xcc, supermicro, dgx, ami; leave it out to have it found");
        faults.push(Detail::at("/vendor", "unknown_value", message));
    }
    for (path, url) in
        [("/overrides/media_url", &body.overrides.media_url), ("/overrides/callback_url", &body.overrides.callback_url)]
    {
        if url.as_ref().is_some_and(|url| !crate::settings::is_address(url)) {
            faults.push(Detail::at(
                path,
                "pattern",
                "http(s)://host[:port][/path] was expected, without credentials and query",
            ));
        }
    }
    if let BmcTls::Ca { pem } = &body.bmc.tls
        && crate::adapters::tls::builder(&body.bmc.tls).is_err() | !pem.contains("-----BEGIN CERTIFICATE-----")
    {
        faults.push(Detail::at("/bmc/tls/pem", "pattern", "one or more certificates in PEM were expected"));
    }
    if let BmcTls::Pin { sha256 } = &body.bmc.tls
        && crate::adapters::tls::parse_pin(sha256).is_none()
    {
        faults.push(Detail::at("/bmc/tls/sha256", "pattern", "64 hex digits were expected"));
    }
    let sealed_password = match (&body.bmc.password, &known) {
        (Some(password), _) => metal.key.seal(&serial.password_purpose(), password),
        (None, Some(known)) if known.spec.bmc.address == body.bmc.address && known.spec.bmc.tls == body.bmc.tls => {
            known.sealed_password.clone()
        }
        (None, Some(_)) => {
            let message =
                "a password is not sent to another address or under another judgement unless it is given again";
            faults.push(Detail::at("/bmc/password", "required", message));
            String::new()
        }
        (None, None) => {
            faults.push(Detail::at("/bmc/password", "required", "a new server needs the password of its BMC account"));
            String::new()
        }
    };
    if !faults.is_empty() {
        let detail = format!("the record of server {serial} has {} fault(s)", faults.len());
        return Err(Problem::new(ErrorKind::Invalid, errors::VALIDATION, detail).detail_list(faults));
    }
    if let Some(known) = &known
        && (known.spec.bmc.address != body.bmc.address || known.spec.bmc.system != body.bmc.system)
        && let Some(job) = metal.store.latest_job(&serial).await?
        && job.status != Status::Complete
    {
        let detail = format!("job {} is not complete: its clean-up would go to another BMC", job.id);
        return Err(Problem::new(ErrorKind::Conflict, errors::ACTIVE_JOB, detail));
    }
    let now = metal.clock.now();
    let bmc =
        BmcSpec { address: body.bmc.address, username: body.bmc.username, tls: body.bmc.tls, system: body.bmc.system };
    refuse_second_record(&metal, &serial, &bmc).await?;
    let server = Server {
        spec: ServerSpec { bmc, vendor: body.vendor, network: body.network, overrides: body.overrides },
        serial: serial.clone(),
        sealed_password,
        labels: body.labels,
        generation: 0,
        detected_vendor: None,
        last_seen: None,
        power: None,
        created_at: now,
        updated_at: now,
    };
    metal.store.put_server(&server).await?;
    let stored = metal.store.server(&serial).await?.ok_or_else(|| not_found("server", &serial))?;
    let status = if known.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(stored.into())))
}

/// Two records of one machine could have a job each, and each would wipe what the other installs.
async fn refuse_second_record(metal: &Metal, serial: &Serial, bmc: &BmcSpec) -> Result<(), Problem> {
    let mut cursor: Option<String> = None;
    loop {
        let page = metal.store.servers(cursor.as_deref(), PAGE.1).await?;
        if let Some(other) = page.iter().find(|other| other.serial != *serial && other.spec.bmc.may_be_same(bmc)) {
            let detail = format!("server {} has the BMC {} and may be the same machine", other.serial, bmc.address);
            return Err(Problem::new(ErrorKind::Conflict, errors::BMC_IN_USE, detail).hint(
                "one BMC of several systems needs --bmc-system in each record; otherwise remove the other record",
            ));
        }
        match page.last() {
            Some(last) if page.len() == PAGE.1 as usize => cursor = Some(last.serial.to_string()),
            _ => return Ok(()),
        }
    }
}

pub(super) async fn show(State(metal): Shared, Path(serial): Path<String>) -> Result<Json<ServerView>, Problem> {
    let serial = serial_of(&serial)?;
    let server = metal.store.server(&serial).await?.ok_or_else(|| not_found("server", &serial))?;
    Ok(Json(server.into()))
}

pub(super) async fn list(State(metal): Shared, Query(page): Query<Page>) -> Result<Json<ServerList>, Problem> {
    let limit = page.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    let mut servers = metal.store.servers(page.cursor.as_deref(), limit + 1).await?;
    let more = servers.len() > limit as usize;
    servers.truncate(limit as usize);
    let next_cursor = servers.last().filter(|_| more).map(|server| server.serial.to_string());
    Ok(Json(ServerList { servers: servers.into_iter().map(ServerView::from).collect(), next_cursor }))
}

pub(super) async fn remove(State(metal): Shared, Path(serial): Path<String>) -> Result<StatusCode, Problem> {
    let serial = serial_of(&serial)?;
    if metal.store.server(&serial).await?.is_none() {
        return Err(not_found("server", &serial));
    }
    if metal.store.remove_server(&serial).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail = format!("server {serial} has a job that is not complete");
    Err(Problem::new(ErrorKind::Conflict, errors::ACTIVE_JOB, detail).hint("cancel it first: cairn metal job cancel"))
}

fn serial_of(text: &str) -> Result<Serial, Problem> {
    text.parse().map_err(|problem: crate::model::InvalidSerial| {
        Problem::new(ErrorKind::Invalid, web::codes::INVALID_REQUEST, problem.to_string())
    })
}
