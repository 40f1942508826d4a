//! `GET …/tags/list`, with `n` and `last`.

use axum::Json;
use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::Call;
use super::error::{Code, Failure};
use crate::{RepositoryName, Tag};

pub(super) async fn list(call: &Call, repository: &RepositoryName) -> Result<Response, Failure> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(Failure::method_not_allowed("GET, HEAD"));
    }
    let storage = &call.registry.storage;
    if !storage.has_repository(repository).await? {
        return Err(Failure::new(Code::NameUnknown, "repository name not known to registry"));
    }
    let count = match call.parameter("n") {
        Some(text) => Some(text.parse::<usize>().map_err(|_| Failure::new(Code::SizeInvalid, "n is not a number"))?),
        None => None,
    };
    let (page, more) = page(storage.tags(repository).await?, count, call.parameter("last"));
    let next = page
        .last()
        .filter(|_| more)
        .map(|last| format!("</v2/{repository}/tags/list?n={}&last={last}>; rel=\"next\"", page.len()));
    let tags: Vec<&str> = page.iter().map(Tag::as_str).collect();
    let body = Json(json!({"name": repository.as_str(), "tags": tags}));
    Ok(match next {
        Some(next) => ([(header::LINK, next)], body).into_response(),
        None => body.into_response(),
    })
}

/// The tags after `last`, at most `count`, and whether there are more.
fn page(tags: Vec<Tag>, count: Option<usize>, last: Option<&str>) -> (Vec<Tag>, bool) {
    let mut rest: Vec<Tag> = tags.into_iter().filter(|tag| last.is_none_or(|last| tag.as_str() > last)).collect();
    let more = count.is_some_and(|count| rest.len() > count);
    rest.truncate(count.unwrap_or(usize::MAX));
    (rest, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let tags = || -> Vec<Tag> { ["1", "2", "3"].map(|tag| tag.parse().unwrap()).to_vec() };
        let texts = |(page, more): (Vec<Tag>, bool)| (page.iter().map(ToString::to_string).collect::<String>(), more);
        assert_eq!(texts(page(tags(), None, None)), ("123".to_owned(), false));
        assert_eq!(texts(page(tags(), Some(2), None)), ("12".to_owned(), true));
        assert_eq!(texts(page(tags(), Some(2), Some("2"))), ("3".to_owned(), false));
        assert_eq!(texts(page(tags(), Some(0), None)), (String::new(), true));
        assert_eq!(texts(page(tags(), None, Some("9"))), (String::new(), false));
    }
}
