//! Serves the files of one directory over HTTP, for virtual media that no controller is needed for.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Runs until the program ends; listens on a free port of 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct FileServer(SocketAddr);

impl FileServer {
    /// Serves GET and HEAD of the files right in `directory`.
    pub fn start(directory: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen")?;
        let address = listener.local_addr()?;
        let directory = directory.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let directory = directory.clone();
                // A client that goes away in the middle is no concern of a test.
                std::thread::spawn(move || answer(stream, &directory));
            }
        });
        Ok(Self(address))
    }

    /// Address of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.0)
    }
}

fn answer(mut stream: TcpStream, directory: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match open(directory, path) {
        Some((mut file, length)) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
            if method == "GET" {
                std::io::copy(&mut file, &mut stream)?;
            }
            Ok(())
        }
        None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

fn open(directory: &Path, path: &str) -> Option<(File, u64)> {
    let name = PathBuf::from(path.trim_start_matches('/'));
    let file = File::open(directory.join(name.file_name()?)).ok()?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    Some((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[test]
    fn serves_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.iso"), b"bytes").unwrap();
        let server = FileServer::start(directory.path()).unwrap();
        assert_eq!(http::get(&server.url("a.iso")).unwrap().body, b"bytes");
        assert_eq!(http::get(&server.url("b.iso")).unwrap().status, 404);
    }
}
