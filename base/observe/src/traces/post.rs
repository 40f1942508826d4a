//! One request to a collector.

use std::time::Duration;

use cairn_core::chain;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, redirect};
use url::Url;

use super::clean::clean;
use super::{Collector, TracesError};

/// Most of an answer that is read, in bytes.
const MOST: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Post {
    client: Client,
    url: Url,
    resource: ResourceAttributesWithSchema,
}

/// What the collector said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has them, but for so many.
    Taken { rejected: u64 },
    /// It is not there or cannot take them now.
    Later { reason: String, after: Option<Duration> },
    /// It never takes these.
    Refused { reason: String },
}

impl Post {
    pub(super) fn new(collector: &Collector, resource: &Resource, limit: Duration) -> Result<Self, TracesError> {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(limit)
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|source| TracesError::Client { source })?;
        Ok(Self { client, url: collector.traces(), resource: resource.into() })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn send(&self, spans: &[SpanData]) -> Answer {
        let spans = spans.iter().cloned().map(clean).collect();
        let message =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &self.resource) };
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        match request.body(message.encode_to_vec()).send().await {
            Ok(response) => judge(response).await,
            // The address stands beside the reason.
            Err(error) => Answer::Later { reason: chain(&error.without_url()), after: None },
        }
    }
}

/// OTLP/HTTP, "Failures" and "Throttling": these four are tried again, no others.
async fn judge(mut response: Response) -> Answer {
    let status = response.status();
    let reason = format!("it answers {status}");
    match status {
        _ if status.is_success() => Answer::Taken { rejected: rejected(&mut response).await },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            Answer::Later { reason, after: after.map(Duration::from_secs) }
        }
        _ => Answer::Refused { reason },
    }
}

/// How many spans a collector does not want that took the others. One that cannot say it has taken all.
async fn rejected(response: &mut Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() > MOST {
            return 0;
        }
    }
    let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or_default())
}
