//! Health checks that begin where Cairn runs.

use std::time::Duration;

use cairn_core::chain;
use tokio::net::TcpStream;

/// Asks a URL once. Redirects are not followed: the status of the URL itself is what was asked about.
///
/// # Errors
/// Why it does not hold, for people.
pub async fn http(url: &str, status: Option<u16>, limit: Duration) -> Result<(), String> {
    let failed = |error: reqwest::Error| chain(&error.without_url());
    // A proxy of this process's environment would be asked about a machine that it need not reach.
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(limit)
        .build()
        .map_err(failed)?;
    let seen = client.get(url).send().await.map_err(failed)?.status();
    let holds = status.map_or(seen.is_success(), |status| status == seen.as_u16());
    if holds { Ok(()) } else { Err(format!("it answers {}", seen.as_u16())) }
}

/// Connects to a port once.
///
/// # Errors
/// Why it does not hold, for people.
pub async fn tcp(host: &str, port: u16, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, TcpStream::connect((host.trim_matches(['[', ']']), port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_port_is_there_or_it_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", port, LONG).await, Ok(()));
        drop(listener);
        assert!(tcp("127.0.0.1", port, LONG).await.is_err());
    }

    #[tokio::test]
    async fn the_status_is_what_counts() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        });
        assert_eq!(http(&url, None, LONG).await, Err("it answers 503".to_owned()));
        assert_eq!(http(&url, Some(503), LONG).await, Ok(()));
        server.abort();
    }
}
