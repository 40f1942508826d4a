//! `git http-backend` behind a small HTTP server that wants a token, and that can stop in the middle of an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

pub(crate) struct HttpServer {
    port: u16,
    ending: Arc<AtomicBool>,
    /// Sends one message for every answer that has stopped; the value in it lets the answer go on when it goes.
    pub(crate) stopped: Receiver<Sender<()>>,
    stops: Arc<AtomicBool>,
}

struct Site {
    root: PathBuf,
    /// What has to be in the header Authorization.
    wanted: Option<String>,
    stops: Arc<AtomicBool>,
    stopped: Mutex<Sender<Sender<()>>>,
}

impl HttpServer {
    /// Serves the repositories below `root`; `login` is `user:token`.
    pub(crate) fn new(root: PathBuf, login: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, stopped) = channel();
        let (stops, ending) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let wanted = login.map(|login| format!("Basic {}", base64(login.as_bytes())));
        let site = Arc::new(Site { root, wanted, stops: Arc::clone(&stops), stopped: Mutex::new(sender) });
        let end = Arc::clone(&ending);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (site, stream) = (Arc::clone(&site), stream.unwrap());
                // A client that was killed is no failure of the server.
                std::thread::spawn(move || drop(answer(&site, stream)));
            }
        });
        Self { port, ending, stopped, stops }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/served.git", self.port)
    }

    /// Whether answers to git-upload-pack stop half-way.
    pub(crate) fn stop_half_way(&self, stops: bool) {
        self.stops.store(stops, Ordering::SeqCst);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn answer(site: &Site, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if site.wanted.as_deref().is_some_and(|wanted| header("authorization") != Some(wanted)) {
        let refused = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n";
        return write!(stream, "{refused}Content-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut body = vec![0; header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_PROJECT_ROOT", &site.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("REQUEST_METHOD", &method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    backend.stdin.take().unwrap().write_all(&body)?;
    let output = backend.wait_with_output()?.stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(output.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{head}")?;
    let body = &output[end..];
    // What asks for a pack, not for references.
    let is_pack = body.windows(4).any(|bytes| bytes == b"PACK");
    if is_pack && site.stops.load(Ordering::SeqCst) {
        stream.write_all(&body[..body.len() / 2])?;
        let (go_on, wait) = channel();
        let _ = site.stopped.lock().unwrap().send(go_on);
        let _ = wait.recv();
        return stream.write_all(&body[body.len() / 2..]);
    }
    stream.write_all(body)
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}
