//! `/v1/tokens`.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cairn_core::ErrorKind;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use web::{Json, Problem};

use super::gate::Made;
use super::{Shared, invalid};
use crate::access::{self, NewToken, Token, TokenId};
use crate::model::CustomerId;
use crate::service::Caller;

/// Whose a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Customer,
    Operator,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateToken {
    name: String,
    role: Role,
    #[serde(default, alias = "customer")]
    customer_id: Option<CustomerId>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
}

fn view(token: &Token) -> serde_json::Value {
    let role = if token.customer.is_some() { Role::Customer } else { Role::Operator };
    json!({
        "id": token.id,
        "name": token.name,
        "role": role,
        "customer_id": token.customer,
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    })
}

pub(super) async fn list(State(api): Shared) -> Result<Json<serde_json::Value>, Problem> {
    let tokens = api.tokens.list().await?;
    Ok(Json(json!({ "tokens": tokens.iter().map(view).collect::<Vec<_>>() })))
}

pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    Json(body): Json<CreateToken>,
) -> Result<Response, Problem> {
    match (body.role, &body.customer_id) {
        (Role::Customer, None) => return Err(invalid("customer_id: a customer's token needs its customer")),
        (Role::Operator, Some(_)) => return Err(invalid("customer_id: an operator's token is for all customers")),
        _ => {}
    }
    let new = NewToken { name: body.name, customer: body.customer_id, expires_at: body.expires_at };
    let (token, text) = api.tokens.create(&caller.who, new).await?;
    let mut shown = view(&token);
    shown["token"] = text.expose_secret().into();
    let made = Extension(Made(token.id.to_string()));
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], made, Json(shown)).into_response())
}

pub(super) async fn revoke(State(api): Shared, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let missing = || {
        let detail = "there is no such token, or it has been revoked already";
        Problem::new(ErrorKind::NotFound, web::codes::NOT_FOUND, detail)
    };
    let id: TokenId = id.parse().map_err(|_| missing())?;
    if api.tokens.revoke(&id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(missing()) }
}

impl From<access::Error> for Problem {
    fn from(error: access::Error) -> Self {
        match &error {
            access::Error::Name(_) | access::Error::Expired(_) => invalid(error.to_string()),
            access::Error::Store(_) | access::Error::File { .. } => Self::internal(&error),
        }
    }
}
