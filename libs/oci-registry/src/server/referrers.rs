//! `GET …/referrers/<digest>`, with `artifactType`.

use axum::http::{Method, header};
use axum::response::Response;

use super::OCI_FILTERS_APPLIED;
use super::call::Call;
use super::error::Failure;
use super::page::linked;
use super::timed;
use crate::{Descriptor, Digest, Index, RepositoryName, media_type};

/// `subject` is `None` for a digest of an algorithm that is not known here: nothing can be about it, which is no error.
pub(super) async fn list(
    call: &Call,
    repository: &RepositoryName,
    subject: Option<Digest>,
) -> Result<Response, Failure> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    let look = async {
        let referrers = match &subject {
            Some(subject) => call.registry.storage.referrers(repository, subject).await?,
            None => Vec::new(),
        };
        Ok(respond(call, repository, subject.clone(), referrers))
    };
    timed::looked(call.longest(), look).await
}

/// The answer that takes from all referrers those that the client asks for.
pub(super) fn respond(
    call: &Call,
    repository: &RepositoryName,
    subject: Option<Digest>,
    mut referrers: Vec<Descriptor>,
) -> Response {
    // A `+` of a media type that the client did not encode was read as a space.
    let wanted = call.parameter("artifactType").filter(|kind| !kind.is_empty()).map(|kind| kind.replace(' ', "+"));
    if let Some(wanted) = &wanted {
        referrers.retain(|referrer| referrer.artifact_type.as_ref() == Some(wanted));
    }
    if let Some(last) = call.parameter("last") {
        referrers.retain(|referrer| referrer.digest.to_string().as_str() > last);
    }
    let (page, more) = first_page(referrers, call.registry.options.limits.max_manifest_size);
    let next = page.last().filter(|_| more).zip(subject).map(|(last, subject)| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("last", &last.digest.to_string());
        query.extend_pairs(wanted.iter().map(|wanted| ("artifactType", wanted)));
        format!("/v2/{repository}/referrers/{subject}?{}", query.finish())
    });
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: page,
        subject: None,
        annotations: Default::default(),
    };
    let mut response = linked(axum::Json(index), next);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type::OCI_INDEX));
    if wanted.is_some() {
        response.headers_mut().insert(OCI_FILTERS_APPLIED, header::HeaderValue::from_static("artifactType"));
    }
    response
}

/// As many as fit into a manifest of `limit` bytes, at least one, and whether there are more.
fn first_page(referrers: Vec<Descriptor>, limit: u64) -> (Vec<Descriptor>, bool) {
    let (mut page, mut size) = (Vec::new(), 200);
    for referrer in referrers {
        size += serde_json::to_vec(&referrer).map_or(0, |json| json.len() as u64 + 1);
        if size > limit && !page.is_empty() {
            return (page, true);
        }
        page.push(referrer);
    }
    (page, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_large_as_a_manifest_may_be() {
        let referrers = || (0..10).map(|n| Descriptor::new("x/y", Digest::sha256_of(&[n]), 1)).collect::<Vec<_>>();
        assert_eq!(first_page(referrers(), 1 << 20), (referrers(), false));
        let (page, more) = first_page(referrers(), 600);
        assert!(more && page.len() == 3, "{}", page.len());
        assert_eq!(first_page(referrers(), 1).0.len(), 1);
    }
}
