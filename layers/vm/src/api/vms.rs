//! `/v1/vms`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use cairn_core::ErrorKind;
use serde_json::{Map, Value};
use web::{Json, Problem};

use super::body::{CreateBody, Maybe, OperationBody};
use super::gate::Touched;
use super::query::Pairs;
use super::view::{VmList, VmView};
use super::{Api, Shared, invalid, vm_id};
use crate::errors;
use crate::model::{Options, State as VmState, Vm, VmId};
use crate::service::{Caller, Filter, Wish};

/// Longest idempotency key.
const LONGEST_KEY: usize = 255;
/// VMs on a page at most.
const LARGEST_PAGE: u32 = 1000;

pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let body = CreateBody::read(body)?;
    let vm = make(&api, &caller, body, idempotency_key(&headers)?).await?;
    let location = AppendHeaders([(header::LOCATION, format!("/v1/vms/{}", vm.id))]);
    let view = VmView::of(&vm, &api.service.wire(&vm), &caller);
    Ok((StatusCode::CREATED, location, Extension(Touched(vm.id.clone())), Json(view)).into_response())
}

/// Creates a VM for its owner: the token's customer, or whom an operator names.
pub(super) async fn make(
    api: &Api,
    caller: &Caller,
    body: CreateBody,
    idempotency_key: Option<String>,
) -> Result<Arc<Vm>, Problem> {
    if let (Some(own), Some(wanted)) = (&caller.customer, &body.customer_id)
        && own != wanted
    {
        let detail = "customer_id is not the customer of the token";
        return Err(Problem::new(ErrorKind::Forbidden, errors::TOKEN_DENIED, detail).hint("leave customer_id out"));
    }
    let customer = caller.customer.clone().or(body.customer_id);
    let wish = Wish { id: body.vm_id, customer, spec: body.spec, idempotency_key };
    Ok(api.service.create(caller, wish).await?)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > LONGEST_KEY {
        return Err(invalid(format!("Idempotency-Key: 1 to {LONGEST_KEY} letters of ASCII were expected")));
    }
    Ok(Some(key.to_owned()))
}

pub(super) async fn list(State(api): Shared, caller: Caller, query: Pairs) -> Result<Json<VmList>, Problem> {
    query.only(&["state_filter", "page_size", "page_token"])?;
    let page = Page {
        states: query.all("state_filter")?,
        size: query.one("page_size")?.unwrap_or_default(),
        token: query.one::<String>("page_token")?.unwrap_or_default(),
    };
    page.read(&api, &caller).await.map(Json)
}

/// Which part of a list is wanted.
pub(super) struct Page {
    pub(super) states: Vec<VmState>,
    /// 0: everything.
    pub(super) size: u32,
    /// Empty: the first one.
    pub(super) token: String,
}

impl Page {
    pub(super) async fn read(self, api: &Api, caller: &Caller) -> Result<VmList, Problem> {
        api.metrics.list_requests.inc();
        let after = match self.token.as_str() {
            "" => None,
            token => Some(token.parse::<VmId>().map_err(|_| invalid("page_token: it is none that a page has named"))?),
        };
        let size = (self.size > 0).then(|| self.size.min(LARGEST_PAGE));
        // One more than asked for says whether there is another page.
        let filter = Filter { states: self.states, after, limit: size.map(|size| size + 1) };
        let (mut vms, total_count) = api.service.list(caller, &filter).await?;
        let is_more = size.is_some_and(|size| vms.len() > size as usize);
        vms.truncate(size.map_or(usize::MAX, |size| size as usize));
        let next_page_token = vms.last().filter(|_| is_more).map(|vm| vm.id.to_string()).unwrap_or_default();
        let vms = vms.iter().map(|vm| VmView::of(vm, &api.service.wire(vm), caller).in_list()).collect();
        Ok(VmList { vms, next_page_token, total_count })
    }
}

pub(super) async fn show(State(api): Shared, caller: Caller, Path(id): Path<String>) -> Result<Json<VmView>, Problem> {
    api.metrics.info_requests.inc();
    let vm = api.service.get(&caller, &vm_id(&id)?).await?;
    Ok(Json(VmView::of(&vm, &api.service.wire(&vm), &caller)))
}

pub(super) async fn remove(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
    query: Pairs,
    Maybe(body): Maybe<OperationBody>,
) -> Result<StatusCode, Problem> {
    query.only(&["force", "timeout_seconds"])?;
    let body = Options::from(body);
    let options = Options {
        force: body.force || query.switch("force")?,
        timeout_seconds: query.one("timeout_seconds")?.or(body.timeout_seconds),
    };
    api.service.delete(&caller, &vm_id(&id)?, options).await?;
    Ok(StatusCode::NO_CONTENT)
}
