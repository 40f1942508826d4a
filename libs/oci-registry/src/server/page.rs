//! Lists in pages: `n` and `last` in, `Link` out (distribution-spec 1.1, "Listing Tags").

use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::call::Call;
use super::error::{Code, Failure};

/// How many entries a request asks for; `None` when it does not say.
pub(super) fn count(call: &Call) -> Result<Option<usize>, Failure> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| Failure::new(Code::SizeInvalid, "n is not a number"));
    call.parameter("n").map(number).transpose()
}

/// The entries after `last`, at most `count`, and whether there are more. `entries` are sorted.
pub(super) fn page<T: AsRef<str>>(entries: Vec<T>, count: Option<usize>, last: Option<&str>) -> (Vec<T>, bool) {
    let mut rest: Vec<T> = entries.into_iter().filter(|entry| last.is_none_or(|last| entry.as_ref() > last)).collect();
    let more = count.is_some_and(|count| rest.len() > count);
    rest.truncate(count.unwrap_or(usize::MAX));
    (rest, more)
}

/// Adds a `Link` to the next page, where there is one; `next` is its path and query.
pub(super) fn linked(answer: impl IntoResponse, next: Option<String>) -> Response {
    match next {
        Some(next) => ([(header::LINK, format!("<{next}>; rel=\"next\""))], answer).into_response(),
        None => answer.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let texts = |(page, more): (Vec<&str>, bool)| (page.concat(), more);
        let all = || vec!["1", "2", "3"];
        assert_eq!(texts(page(all(), None, None)), ("123".to_owned(), false));
        assert_eq!(texts(page(all(), Some(2), None)), ("12".to_owned(), true));
        assert_eq!(texts(page(all(), Some(2), Some("2"))), ("3".to_owned(), false));
        assert_eq!(texts(page(all(), Some(0), None)), (String::new(), true));
        assert_eq!(texts(page(all(), None, Some("9"))), (String::new(), false));
    }
}
