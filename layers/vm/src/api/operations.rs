//! What is done with a VM. Each answers when it is over; a caller who leaves does not end it.

use std::time::Duration;

use axum::extract::{Path, State};
use web::{Json, Problem};

use super::body::{Maybe, OperationBody};
use super::query::Pairs;
use super::view::VmView;
use super::{Api, Shared, invalid, vm_id};
use crate::model::State as VmState;
use crate::plan::Kind;
use crate::service::Caller;

/// How long a wait lasts when nothing is said, and at most, in seconds.
const WAIT: (u64, u64) = (60, 600);

macro_rules! operations {
    ($($name:ident: $kind:expr;)*) => {$(
        pub(super) async fn $name(
            State(api): Shared,
            caller: Caller,
            Path(id): Path<String>,
            body: Maybe<OperationBody>,
        ) -> Result<Json<VmView>, Problem> {
            operate(&api, &caller, &id, $kind, body).await
        }
    )*};
}

operations! {
    boot: Kind::Boot;
    shutdown: Kind::Stop;
    pause: Kind::Pause;
    resume: Kind::Resume;
    reboot: Kind::Reboot;
}

async fn operate(
    api: &Api,
    caller: &Caller,
    id: &str,
    kind: Kind,
    Maybe(body): Maybe<OperationBody>,
) -> Result<Json<VmView>, Problem> {
    let vm = api.service.operate(caller, &vm_id(id)?, kind, body.into()).await?;
    Ok(Json(VmView::of(&vm, &api.service.wire(&vm), caller)))
}

pub(super) async fn wait(
    State(api): Shared,
    caller: Caller,
    Path(id): Path<String>,
    query: Pairs,
) -> Result<Json<VmView>, Problem> {
    query.only(&["state", "timeout"])?;
    let states: Vec<VmState> = query.all("state")?;
    if states.is_empty() {
        return Err(invalid("state: which state is waited for? Several are possible, and one of them is enough"));
    }
    let limit = query.one::<Seconds>("timeout")?.map_or(WAIT.0, |seconds| seconds.0);
    let limit = Duration::from_secs(limit.min(WAIT.1));
    let vm = api.service.wait(&caller, &vm_id(&id)?, &states, limit).await?;
    Ok(Json(VmView::of(&vm, &api.service.wire(&vm), &caller)))
}

/// `30` or `30s`.
struct Seconds(u64);

impl std::str::FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('s').unwrap_or(text);
        number.parse().map(Self).map_err(|_| format!("{text:?} is no number of seconds"))
    }
}
