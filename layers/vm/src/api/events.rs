//! What happened: a list, or a stream of server-sent events that goes on after the last one that the client has seen.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::unfold;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use web::{Json, Problem};

use super::query::Pairs;
use super::{Shared, invalid, vm_id};
use crate::model::{Event, VmId};
use crate::service::{Caller, Service};

/// Events of a list when nothing is said, and at most; and of a look in a stream.
const PAGE: (u32, u32) = (100, 1000);
/// Kind of a VM's last event.
const DELETED: &str = "deleted";

pub(super) async fn of_all(
    State(api): Shared,
    Extension(shutdown): Extension<CancellationToken>,
    caller: Caller,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer(&api.service, shutdown, caller, None, &query, &headers).await
}

pub(super) async fn of_one(
    State(api): Shared,
    Extension(shutdown): Extension<CancellationToken>,
    caller: Caller,
    Path(id): Path<String>,
    query: Pairs,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = vm_id(&id)?;
    answer(&api.service, shutdown, caller, Some(id), &query, &headers).await
}

async fn answer(
    service: &Arc<Service>,
    shutdown: CancellationToken,
    caller: Caller,
    vm: Option<VmId>,
    query: &Pairs,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    query.only(&["after", "limit"])?;
    let after = query.one("after")?;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if !header(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        let limit = query.one("limit")?.unwrap_or(PAGE.0).clamp(1, PAGE.1);
        let events = service.events(&caller, vm.as_ref(), after.unwrap_or_default(), limit).await?;
        // What happened to a VM can be read after its end, by whom it belonged to.
        if let Some(id) = vm.filter(|_| events.is_empty()) {
            service.get(&caller, &id).await?;
        }
        let next = events.last().map_or(after.unwrap_or_default(), |event| event.id);
        return Ok(Json(json!({ "events": events, "next_after": next })).into_response());
    }
    if let Some(id) = &vm {
        service.get(&caller, id).await?;
    }
    // A browser that connects again says how far it was.
    let seen = headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.parse::<i64>().ok()));
    let seen = match seen {
        Some(None) => return Err(invalid("Last-Event-ID: it is none that this stream has sent")),
        Some(seen) => seen,
        None => after,
    };
    // News that come from here on are not missed, whatever is read first.
    let news = service.watch_events();
    let following = Following {
        service: Arc::clone(service),
        caller,
        vm,
        after: seen.unwrap_or_default(),
        news,
        waiting: VecDeque::new(),
        is_over: false,
    };
    let stream = unfold(following, move |mut following| {
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                event = following.next() => Some((Ok::<_, Infallible>(sse(&event?)), following)),
                () = shutdown.cancelled() => None,
            }
        }
    });
    Ok(([(header::CACHE_CONTROL, "no-store")], Sse::new(stream).keep_alive(KeepAlive::default())).into_response())
}

fn sse(event: &Event) -> SseEvent {
    let data = serde_json::to_string(event).unwrap_or_default();
    SseEvent::default().event("event").id(event.id.to_string()).data(data)
}

struct Following {
    service: Arc<Service>,
    caller: Caller,
    vm: Option<VmId>,
    after: i64,
    news: Receiver<Event>,
    waiting: VecDeque<Event>,
    is_over: bool,
}

impl Following {
    /// The next event; waits until there is one. Nothing once the one VM that is followed is gone.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.after = event.id;
                // A VM of this name may have been deleted before the one that is there.
                self.is_over =
                    event.kind == DELETED && self.vm.as_ref().is_some_and(|vm| !self.service.may_see(&self.caller, vm));
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            // News only say that it is time to look: what is stored is what this caller may see, and in order.
            match self.service.events(&self.caller, self.vm.as_ref(), self.after, PAGE.1).await {
                Ok(events) if events.is_empty() => match self.news.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                Ok(events) => self.waiting.extend(events),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "events cannot be followed");
                    return None;
                }
            }
        }
    }
}
