//! Queries in which a name may stand several times, which `web::Query` cannot read.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use web::Problem;

use super::invalid;

/// Names and values, in their order.
pub(super) struct Pairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()))
    }
}

impl Pairs {
    /// Refuses names that mean nothing here.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        let Some((name, _)) = self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) else { return Ok(()) };
        let likeness = |known: &&&str| strsim::normalized_damerau_levenshtein(name, known);
        let meant = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let problem =
            invalid(format!("the query is wrong: {name:?} means nothing here; known are {}", known.join(", ")));
        Err(match meant.filter(|meant| likeness(meant) >= 0.6) {
            Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
            None => problem,
        })
    }

    /// All values of a name; also separated by commas.
    pub(super) fn all<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Vec<T>, Problem> {
        let values = self.0.iter().filter(|(key, _)| key == name).flat_map(|(_, value)| value.split(','));
        values
            .filter(|value| !value.is_empty())
            .map(|value| value.parse().map_err(|error: T::Err| invalid(format!("{name}: {error}"))))
            .collect()
    }

    /// The one value of a name; an empty one is none.
    pub(super) fn one<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Problem> {
        let mut values = self.0.iter().filter(|(key, value)| key == name && !value.is_empty());
        let Some((_, value)) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(invalid(format!("{name} stands twice in the query")));
        }
        value.parse().map(Some).map_err(|error: T::Err| invalid(format!("{name}: {error}")))
    }

    /// A switch: `?force`, `?force=true`, `?force=1`.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Problem> {
        match self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => Err(invalid(format!("{name}: {other:?} is neither true nor false"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Pairs {
        Pairs(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    #[test]
    fn what_stands_in_a_query() {
        let query = pairs("state=a&state=b%2Cc&force&dry=true&size=7&none=");
        assert_eq!(query.all::<String>("state").unwrap(), ["a", "b", "c"]);
        assert!(query.switch("force").unwrap() && query.switch("dry").unwrap() && !query.switch("other").unwrap());
        assert_eq!(query.one::<u32>("size").unwrap(), Some(7));
        assert_eq!(query.one::<u32>("none").unwrap(), None);
        assert!(query.one::<String>("state").is_err() && query.one::<u32>("dry").is_err());
        assert!(pairs("force=maybe").switch("force").is_err());
        let problem = pairs("pagesize=1").only(&["page_size", "page_token"]).unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("did you mean `page_size`?"));
        assert!(pairs("page_size=1").only(&["page_size"]).is_ok());
    }
}
