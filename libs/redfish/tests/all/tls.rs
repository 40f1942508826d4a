//! TLS against `openssl s_server`: a certificate nobody trusts, and a server without a cipher that is still safe.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use redfish::{Bmc, Error};
use url::Url;

use crate::support::{Seen, assert_clean, connect, credentials, http, not_run, phase, quick};

/// Writes `key.pem` and `certificate.pem` of a self-signed server at 127.0.0.1; `false` without openssl.
pub(crate) fn certificate(folder: &Path) -> bool {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(folder)
        .output();
    let Ok(made) = made else { return false };
    // Judged by what it wrote: an openssl that runs with the library of another release may crash on its way out.
    let written = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default().contains("-----END ");
    let whole = written("key.pem") && written("certificate.pem");
    assert!(whole, "openssl: {}: {}", made.status, String::from_utf8_lossy(&made.stderr));
    true
}

/// A child that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(folder: &Path, options: &[&str]) -> (Running, Url) {
    let mut child = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-key", "key.pem", "-cert", "certificate.pem", "-www"])
        .args(options)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("ACCEPT ").map(str::to_owned)).unwrap();
    // The server must be able to go on writing.
    std::thread::spawn(move || lines.for_each(drop));
    (Running(child), format!("https://{address}").parse().unwrap())
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_told_from_no_common_cipher() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path()) {
        return not_run("a_certificate_that_nobody_trusts_is_told_from_no_common_cipher", "openssl");
    }
    let seen = Seen::new();
    let (_server, url) = serve(folder.path(), &[]);
    let error = connect(&url, quick(), &seen).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert_eq!(seen.codes("discover"), ["error"], "asking again would not help");
    assert_clean(&error);

    // What the oldest BMCs offer: key exchange by RSA, no forward secrecy.
    let (_server, url) = serve(folder.path(), &["-tls1_2", "-cipher", "AES128-SHA:AES256-SHA"]);
    let error = connect(&url, quick(), &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::NoCommonCipher { .. }), "{error:?}");
}

#[tokio::test]
async fn a_certificate_that_the_caller_trusts_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path()) {
        return not_run("a_certificate_that_the_caller_trusts_is_accepted", "openssl");
    }
    let (_server, url) = serve(folder.path(), &[]);
    let pem = std::fs::read(folder.path().join("certificate.pem")).unwrap();
    let trusting = http().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
    let connected =
        Bmc::connect(trusting, url, credentials("x"), quick(), Arc::new(()), phase("discover")).await.unwrap_err();
    assert!(matches!(connected, Error::Protocol { .. }), "TLS is done, the server speaks no Redfish: {connected:?}");
}
