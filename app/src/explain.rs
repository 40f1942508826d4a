//! `cairn explain`: the pages of docs/errors/, built in.

use cairn_core::ErrorKind;
use cli::Output;
use serde_json::json;
use web::Problem;

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// `/errors/CODE`: where the `type` of a Problem points.
pub fn routes() -> axum::Router {
    async fn page(
        axum::extract::Path(code): axum::extract::Path<String>,
    ) -> Result<impl axum::response::IntoResponse, Problem> {
        let found = PAGES.iter().find(|(known, _)| *known == code);
        let (_, page) = found.ok_or_else(|| {
            Problem::new(ErrorKind::NotFound, web::codes::NOT_FOUND, format!("there is no page for {code:?}"))
        })?;
        Ok(([("content-type", "text/markdown; charset=utf-8")], *page))
    }
    axum::Router::new().route("/errors/{code}", axum::routing::get(page))
}

/// Prints the page of a code, or the list of codes.
pub fn explain(code: Option<&str>, output: &Output) -> Result<(), Problem> {
    let Some(code) = code else {
        if output.json {
            output.json(&PAGES.iter().map(|(code, _)| code).collect::<Vec<_>>());
        } else {
            let rows: Vec<_> = PAGES.iter().map(|(code, page)| [(*code).to_owned(), title(page).to_owned()]).collect();
            output.table(["CODE", "MEANING"], &rows);
        }
        return Ok(());
    };
    let Some((code, page)) = PAGES.iter().find(|(known, _)| *known == code) else {
        return Err(Problem::new(ErrorKind::NotFound, web::codes::NOT_FOUND, format!("there is no page for {code:?}"))
            .hint("all codes: cairn explain"));
    };
    if output.json {
        output.json(&json!({ "code": code, "page": page }));
    } else {
        output.line(page.trim_end());
    }
    Ok(())
}

/// First paragraph after the heading.
fn title(page: &str) -> &str {
    page.lines().skip(1).find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let pages: BTreeSet<&str> = PAGES.iter().map(|(code, _)| *code).collect();
        let codes: BTreeSet<&str> = [
            metal::errors::ALL,
            metal::errors::REPORTED,
            machine::errors::ALL,
            registry::errors::ALL,
            vm::errors::ALL,
            web::codes::ALL,
            crate::serve::CODES,
            &[cli::CONTROLLER_UNREACHABLE],
        ]
        .into_iter()
        .flatten()
        .copied()
        .collect();
        let missing: Vec<_> = codes.difference(&pages).collect();
        let orphans: Vec<_> = pages.difference(&codes).collect();
        assert!(
            missing.is_empty() && orphans.is_empty(),
            "codes without a page: {missing:?}; pages without a code: {orphans:?}"
        );
    }

    #[test]
    fn a_page_starts_with_its_code() {
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            assert!(!title(page).is_empty(), "{code} says nothing");
        }
    }
}
