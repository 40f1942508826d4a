//! Lists: tags and referrers (distribution-spec 1.1, "Content Discovery").

use reqwest::{Method, header};
use serde::Deserialize;
use url::Url;

use super::login::Need;
use super::pull::whole;
use super::{Client, ClientError, shown, successful, text_header};
use crate::{Descriptor, Digest, Index, RepositoryName, Tag};

/// Most pages of referrers that are read: a registry whose links lead round in a circle is not followed for ever.
const MOST_PAGES: usize = 100;

#[derive(Deserialize)]
struct TagList {
    /// `null` where some registries mean none.
    tags: Option<Vec<String>>,
}

impl Client {
    /// One page of a repository's tags, and whether more follow: those after `last`, at most `count`. Texts that are no
    /// tags by the grammar are left out.
    ///
    /// # Errors
    /// [`ClientError::Status`] with 404 when the registry knows no such repository.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        count: Option<usize>,
        last: Option<&str>,
    ) -> Result<(Vec<Tag>, bool), ClientError> {
        let mut url = self.url(repository, "tags/list");
        if let Some(count) = count {
            url.query_pairs_mut().append_pair("n", &count.to_string());
        }
        if let Some(last) = last {
            url.query_pairs_mut().append_pair("last", last);
        }
        let (list, next): (TagList, _) = self.patiently(|| self.list_once(repository, &url)).await?;
        let tags = list.tags.unwrap_or_default().iter().filter_map(|tag| tag.parse().ok()).collect();
        Ok((tags, next.is_some()))
    }

    /// The manifests whose subject is this digest, of this artifact type where one is given.
    ///
    /// # Errors
    /// [`ClientError::Status`] with 404 when the registry does not have this endpoint.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, ClientError> {
        let mut url = self.url(repository, &format!("referrers/{subject}"));
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let mut found = Vec::new();
        for _ in 0..MOST_PAGES {
            let (index, next): (Index, _) = self.patiently(|| self.list_once(repository, &url)).await?;
            found.extend(index.manifests);
            match next {
                Some(next) => url = next,
                None => break,
            }
        }
        // A registry may leave the filter to its client.
        found.retain(|one| artifact_type.is_none_or(|wanted| one.artifact_type.as_deref() == Some(wanted)));
        Ok(found)
    }

    /// One page and where the next one is, which only ever is at the registry itself.
    async fn list_once<T: for<'a> Deserialize<'a>>(
        &self,
        repository: &RepositoryName,
        url: &Url,
    ) -> Result<(T, Option<Url>), ClientError> {
        let response = self.send(Method::GET, url, repository, Need::Pull, |request| request).await?;
        let shown = shown(url);
        let response = successful(response, &shown).await?;
        let next = text_header(response.headers(), header::LINK)
            .and_then(next_of)
            .and_then(|next| url.join(next).ok())
            .filter(|next| self.is_registry(next));
        let bytes = whole(response, &shown).await?;
        let list = serde_json::from_slice(&bytes).map_err(|source| ClientError::List { url: shown, source })?;
        Ok((list, next))
    }
}

/// The address in `<address>; rel="next"` (RFC 8288).
fn next_of(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::next_of;

    #[test]
    fn links() {
        assert_eq!(next_of(r#"</v2/a/tags/list?n=2&last=b>; rel="next""#), Some("/v2/a/tags/list?n=2&last=b"));
        assert_eq!(next_of("<x>;rel=next"), Some("x"));
        for text in ["", "<x>", r#"<x>; rel="prev""#, r#"x; rel="next""#] {
            assert_eq!(next_of(text), None, "{text}");
        }
    }
}
