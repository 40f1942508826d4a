//! A token, and where it is while git runs.

use reach::git::{Credentials, Error, Mirror, Repository};
use secrecy::SecretString;

use super::http_server::{HttpServer, base64};
use super::{Source, files_with, has, processes_with, repository};

const TOKEN: &str = "glpat-Zb3:q/9w@1K7vXr";

fn with_token(server: &HttpServer, token: &str) -> Repository {
    Repository { credentials: Credentials::Token(SecretString::from(token)), ..repository(server.url()) }
}

/// The token in every form that it has on its way.
fn forms() -> [String; 3] {
    let login = base64(format!("oauth2:{TOKEN}").as_bytes());
    [TOKEN.to_owned(), "glpat-Zb3%3Aq".to_owned(), login]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_seen_by_nobody_while_git_runs_and_left_nowhere() {
    let test = "a_token_is_seen_by_nobody_while_git_runs_and_left_nowhere";
    if !has(test, "git-http-backend") {
        return;
    }
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let expected = source.commit("file", "two");
    let server = HttpServer::new(source.root().to_owned(), Some(&format!("oauth2:{TOKEN}")));
    server.stop_half_way(true);
    let mirror = Mirror::open(directory.path(), with_token(&server, TOKEN)).await.unwrap();
    let root = mirror.path().to_owned();
    let resolving = tokio::spawn(async move {
        let commit = mirror.resolve("main").await.unwrap();
        (mirror.worktree(&commit).await.unwrap(), mirror)
    });
    let forms = forms();
    let words: Vec<&str> = forms.iter().map(String::as_str).collect();
    // Once for the commits, once for the contents of files.
    for _ in 0..2 {
        let go_on = tokio::task::block_in_place(|| server.stopped.recv()).unwrap();
        assert!(!super::processes_in(&root).is_empty(), "git runs");
        assert_eq!(processes_with(&words), [""; 0]);
        assert_eq!(files_with(&root, &words), [""; 0].map(std::path::PathBuf::from));
        drop(go_on);
    }
    let (tree, _mirror) = resolving.await.unwrap();
    assert_eq!(tree.commit().as_str(), expected);
    assert_eq!(std::fs::read_to_string(tree.path().join("file")).unwrap(), "two");
    let mut left = files_with(directory.path(), &words);
    left.extend(files_with(std::path::Path::new("/dev/shm"), &words));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn refused_missing_and_gone_are_told_apart() {
    if !has("refused_missing_and_gone_are_told_apart", "git-http-backend") {
        return;
    }
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let server = HttpServer::new(source.root().to_owned(), Some(&format!("oauth2:{TOKEN}")));
    let resolve = async |repository| Mirror::open(directory.path(), repository).await.unwrap().resolve("main").await;
    let error = resolve(repository(server.url())).await.unwrap_err();
    assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
    let error = resolve(with_token(&server, "wrong-token-5512")).await.unwrap_err();
    assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
    assert!(!format!("{error:?}").contains("wrong-token-5512"));
    let gone = Repository { url: server.url().replace("served", "gone"), ..with_token(&server, TOKEN) };
    let error = resolve(gone).await.unwrap_err();
    assert!(matches!(error, Error::RepositoryGone { .. }), "{error}");
    let right = Credentials::Password { user: "oauth2".to_owned(), password: SecretString::from(TOKEN) };
    resolve(Repository { credentials: right, ..repository(server.url()) }).await.unwrap();
    let url = server.url();
    drop(server);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = resolve(repository(format!("http://{nobody}/a.git"))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{url}: {error}");
}
