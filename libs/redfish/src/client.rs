//! One HTTP conversation with one BMC: addresses, limits, redirects, and which failures are worth another attempt.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, DATE, ETAG, HeaderMap, HeaderName, IF_MATCH, LOCATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::auth::{Authentication, Proof};
use crate::error::{Error, Late};
use crate::fault::Fault;
use crate::options::{Code, Credentials, Observer, Options, Phase, Retry};
use crate::redact::scrub;
use crate::retry;
use crate::vendor::{self, Vendor};

/// Largest body that is read. A resource has a few kilobytes; more is a fault or an attack.
const LARGEST_BODY: usize = 4 * 1024 * 1024;

/// Redirects that are followed in a row.
const REDIRECTS: usize = 5;

/// A request and how it may be treated.
#[derive(Clone)]
pub(crate) struct Call<'a> {
    pub(crate) phase: Phase,
    pub(crate) method: Method,
    /// A link of the BMC: a path, or an address of the same origin.
    pub(crate) path: &'a str,
    body: Option<&'a Value>,
    if_match: Option<&'a str>,
    limit: Option<Duration>,
    repeatable: bool,
    probe: bool,
    slot: Option<&'a str>,
}

impl<'a> Call<'a> {
    fn new(phase: Phase, method: Method, path: &'a str, body: Option<&'a Value>) -> Self {
        let repeatable = method != Method::POST;
        Self { phase, method, path, body, if_match: None, limit: None, repeatable, probe: false, slot: None }
    }

    pub(crate) fn get(phase: Phase, path: &'a str) -> Self {
        Self::new(phase, Method::GET, path, None)
    }

    /// A POST is not sent again when its answer was lost, unless [`Call::repeatable`] says that this is harmless.
    pub(crate) fn post(phase: Phase, path: &'a str, body: &'a Value) -> Self {
        Self::new(phase, Method::POST, path, Some(body))
    }

    pub(crate) fn patch(phase: Phase, path: &'a str, body: &'a Value) -> Self {
        Self::new(phase, Method::PATCH, path, Some(body))
    }

    pub(crate) fn delete(phase: Phase, path: &'a str) -> Self {
        Self::new(phase, Method::DELETE, path, None)
    }

    pub(crate) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// The request asks whether the service understands a form: 500 is an answer to that, not a passing fault.
    pub(crate) fn probe(self) -> Self {
        Self { probe: true, ..self }
    }

    /// Sends `If-Match` where there is an entity tag.
    pub(crate) fn if_match(self, tag: Option<&'a str>) -> Self {
        Self { if_match: tag, ..self }
    }

    /// Replaces the usual limit of one request.
    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The request inserts an image into this drive.
    pub(crate) fn inserting(self, slot: &'a str) -> Self {
        Self { slot: Some(slot), ..self }
    }
}

/// A complete answer with a status below 400.
pub(crate) struct Answer {
    status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// The service has begun something that it has not ended yet.
    pub(crate) fn is_accepted(&self) -> bool {
        self.status == StatusCode::ACCEPTED
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A resource together with its entity tag.
pub(crate) struct Resource<T> {
    pub(crate) value: T,
    /// The `ETag` header or, failing that, `@odata.etag`.
    pub(crate) tag: Option<String>,
}

/// A failure, whether another attempt makes sense, and after how long at least.
struct Refusal {
    error: Error,
    again: bool,
    asked: Option<Duration>,
}

/// Everything that requests to one BMC share.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    pub(crate) host: String,
    pub(crate) credentials: Credentials,
    pub(crate) options: Options,
    pub(crate) authentication: Authentication,
    observer: Arc<dyn Observer>,
    pub(crate) vendor: Vendor,
    pub(crate) label: String,
    retry: Retry,
}

impl Client {
    /// A client for the origin of `base`; user information in it is dropped, its path does not matter.
    pub(crate) fn new(
        http: reqwest::Client,
        mut base: Url,
        credentials: Credentials,
        options: Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Error> {
        let unusable = |problem: &str| Error::protocol(base.scheme(), problem);
        if !matches!(base.scheme(), "http" | "https") {
            return Err(unusable("the address of a BMC begins with https:// or http://"));
        }
        let name = base.host_str().ok_or_else(|| unusable("the address has no host"))?;
        let host = base.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        // Neither can fail for an address with a host.
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        let vendor = options.vendor.unwrap_or(Vendor::Generic);
        let retry = options.retry.unwrap_or(vendor.retry());
        let authentication = Authentication::new(options.auth);
        let label = vendor::label(vendor, None);
        Ok(Self { http, base, host, credentials, options, authentication, observer, vendor, label, retry })
    }

    /// Takes over what was found out about the maker; settings of the caller stay.
    pub(crate) fn learn(&mut self, vendor: Vendor, manufacturer: Option<&str>) {
        self.vendor = self.options.vendor.unwrap_or(vendor);
        self.label = vendor::label(self.vendor, manufacturer);
        self.retry = self.options.retry.unwrap_or(self.vendor.retry());
    }

    /// Reads a resource.
    pub(crate) async fn get<T: DeserializeOwned>(&self, phase: Phase, path: &str) -> Result<Resource<T>, Error> {
        let answer = self.send(&Call::get(phase, path)).await?;
        self.resource(path, &answer)
    }

    /// Reads the body of an answer.
    pub(crate) fn resource<T: DeserializeOwned>(&self, path: &str, answer: &Answer) -> Result<Resource<T>, Error> {
        let body: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| Error::protocol(&self.clean(path), format!("the answer is no JSON: {error}")))?;
        if !body.is_object() {
            return Err(Error::protocol(&self.clean(path), "the answer is no JSON object"));
        }
        let in_body = body.get("@odata.etag").and_then(Value::as_str);
        let tag = answer.header(&ETAG).or(in_body).filter(|tag| !tag.is_empty()).map(str::to_owned);
        let value = serde_json::from_value(body)
            .map_err(|error| Error::protocol(&self.clean(path), format!("unexpected resource: {error}")))?;
        Ok(Resource { value, tag })
    }

    /// Writes to a resource under its entity tag; reads it again, once, when the tag is refused.
    pub(crate) async fn write(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let tag = self.get::<Value>(call.phase, call.path).await?.tag;
        let tag = match self.send(&call.clone().if_match(tag.as_deref())).await {
            // Several services hand out weak tags and then take only strong ones.
            Err(Error::Http { status: 412, .. }) => {
                let tag = self.get::<Value>(call.phase, call.path).await?.tag;
                tag.map(|tag| tag.trim_start_matches("W/").to_owned())
            }
            Err(Error::Http { status: 428, .. }) => Some("*".to_owned()),
            other => return other,
        };
        self.send(&call.clone().if_match(tag.as_deref())).await
    }

    /// Sends a request with credentials; logs in, once, when the BMC asks for it.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Answer, Error> {
        let proof = self.proof(call.phase).await?;
        match self.repeat(call, &proof).await {
            Err(Error::Http { status: 401, .. }) => {}
            other => return other,
        }
        let proof = self.renew(&proof, call.phase).await?;
        match self.repeat(call, &proof).await {
            Err(Error::Http { status: 401, .. }) => Err(self.refused()),
            other => other,
        }
    }

    /// Sends a request until it is answered for good, attempts are used up, or the phase is over.
    pub(crate) async fn repeat(&self, call: &Call<'_>, proof: &Proof) -> Result<Answer, Error> {
        let mut failed = 0;
        let mut last = None;
        loop {
            let refusal = match self.attempt(call, proof).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            failed += 1;
            if !refusal.again || failed >= self.retry.attempts {
                return Err(refusal.error.after(last));
            }
            let delay = retry::delay(&self.retry, failed, refusal.asked);
            tracing::debug!(op = call.phase.op, host = %self.host, attempt = failed, delay_ms = delay.as_millis(),
                error = %refusal.error, "redfish request will be repeated");
            if !retry::pause(call.phase, delay).await {
                return Err(Error::Timeout { phase: call.phase.op, source: Some(Box::new(refusal.error)) });
            }
            last = Some(Box::new(refusal.error));
            self.observer.retry(call.phase.op, &self.label);
        }
    }

    /// One attempt, redirects included.
    async fn attempt(&self, call: &Call<'_>, proof: &Proof) -> Result<Answer, Refusal> {
        let answer = self.follow(call, proof).await.map_err(|error| {
            let again = match error {
                Error::Unreachable { .. } => true,
                Error::NoAnswer { .. } => call.repeatable,
                _ => false,
            };
            Refusal { error, again, asked: None }
        })?;
        let status = answer.status.as_u16();
        if status < 400 {
            return Ok(answer);
        }
        let fault = Fault::read(&answer.body, &self.secrets());
        if let Some(slot) = call.slot
            && fault.media_unreachable()
        {
            let error = Error::MediaUnreachable { slot: slot.to_owned(), message: fault.message };
            return Err(Refusal { error, again: false, asked: None });
        }
        let passing = match status {
            409 | 429 => true,
            500 => !call.probe,
            501 => false,
            _ => status > 501 || (fault.busy() && status != 401),
        };
        let date = answer.header(&DATE);
        let asked = answer.header(&RETRY_AFTER).and_then(|value| retry::retry_after(value, date));
        let error = Error::Http { status, path: self.clean(call.path), message: fault.message };
        Err(Refusal { error, again: passing, asked })
    }

    /// Follows redirects within the BMC. One to anywhere else is refused before anything is sent there.
    async fn follow(&self, call: &Call<'_>, proof: &Proof) -> Result<Answer, Error> {
        let mut url = self.resolve(&self.base, call.path)?;
        for _ in 0..=REDIRECTS {
            let answer = self.exchange(call, url.clone(), proof).await?;
            let same_method = matches!(answer.status.as_u16(), 307 | 308) || call.method == Method::GET;
            let Some(target) = answer.status.is_redirection().then(|| answer.header(&LOCATION)).flatten() else {
                return Ok(answer);
            };
            if !same_method {
                let problem = format!("a redirect with {} would lose the request's body", answer.status.as_u16());
                return Err(Error::protocol(&self.clean(call.path), problem));
            }
            url = self.resolve(&url, target)?;
        }
        Err(Error::protocol(&self.clean(call.path), "too many redirects"))
    }

    /// Turns a link into an address of this BMC.
    fn resolve(&self, from: &Url, link: &str) -> Result<Url, Error> {
        let url =
            from.join(link).map_err(|error| Error::protocol(&self.clean(link), format!("no address: {error}")))?;
        if url.origin() == self.base.origin() {
            return Ok(url);
        }
        let problem = format!("leads to another origin, {}: refused", url.origin().ascii_serialization());
        Err(Error::protocol(self.base.as_str(), problem))
    }

    /// One request and its whole answer, within its limit.
    async fn exchange(&self, call: &Call<'_>, url: Url, proof: &Proof) -> Result<Answer, Error> {
        let phase = call.phase;
        let limit = call.limit.unwrap_or(self.options.request_timeout).min(phase.remaining());
        if limit.is_zero() {
            return Err(Error::Timeout { phase: phase.op, source: None });
        }
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .header(ACCEPT, "application/json")
            .header("OData-Version", "4.0");
        request = proof.attach(request, &self.credentials);
        if let Some(tag) = call.if_match {
            request = request.header(IF_MATCH, tag);
        }
        if let Some(body) = call.body {
            request = request.json(body);
        }
        let started = Instant::now();
        let result = tokio::time::timeout(limit, self.transfer(request, call)).await.unwrap_or_else(|_| {
            let lost = Error::NoAnswer { host: self.host.clone(), source: Late(limit).into() };
            let over = phase.remaining().is_zero();
            Err(if over { Error::Timeout { phase: phase.op, source: Some(Box::new(lost)) } } else { lost })
        });
        let code = result.as_ref().map_or(Code::Transport, |answer| Code::Status(answer.status.as_u16()));
        self.observer.request(phase.op, &self.label, code, started.elapsed());
        tracing::debug!(op = phase.op, host = %self.host, method = %call.method, path = %self.clean(call.path),
            code = %code, duration_ms = started.elapsed().as_millis(), "redfish request");
        result
    }

    /// Sends, and reads a bounded body.
    async fn transfer(&self, request: RequestBuilder, call: &Call<'_>) -> Result<Answer, Error> {
        let lost = |error| Error::from_transport(&self.host, error);
        let mut response = request.send().await.map_err(lost)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if body.len() + chunk.len() > LARGEST_BODY {
                let problem = format!("the answer is larger than {LARGEST_BODY} bytes");
                return Err(Error::protocol(&self.clean(call.path), problem));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
    }

    /// A path or link as it may be shown.
    pub(crate) fn clean(&self, path: &str) -> String {
        scrub(path, &self.secrets())
    }
}
