//! What is measured.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use crate::client::Client;
use crate::content::Content;
use crate::servers::{Kind, Server};

const MIB: u64 = 1 << 20;
/// Size of one piece of a push in pieces, in bytes.
const CHUNK: u64 = 16 * MIB;
/// What [`Measure::Floor`] takes from its socket at once, in bytes.
const PIECE: usize = 256 << 10;
/// Size of a small blob, in bytes.
const SMALL: u64 = 4 << 10;

/// How much is pushed and pulled, in bytes and numbers.
pub struct Sizes {
    large: u64,
    small_count: u64,
    shared: u64,
    at_once: u64,
}

impl Sizes {
    pub const FULL: Self = Self { large: 1024 * MIB, small_count: 1000, shared: 32 * MIB, at_once: 64 };
    pub const QUICK: Self = Self { large: 64 * MIB, small_count: 50, shared: 4 * MIB, at_once: 8 };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Push,
    PushChunks,
    Pull,
    PushSmall,
    PullSmall,
    PullAtOnce,
    /// One SHA-256 pass over what [`Measure::Push`] pushes.
    Hash,
    /// To write that to the disk and sync it, with nothing else done.
    Disk,
    /// To take that from a socket to the disk and sync it, with nothing hashed: what no registry can go below.
    Floor,
}

impl Measure {
    pub const ALL: [Self; 9] = [
        Self::Hash,
        Self::Disk,
        Self::Floor,
        Self::Push,
        Self::PushChunks,
        Self::Pull,
        Self::PushSmall,
        Self::PullSmall,
        Self::PullAtOnce,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push in one request",
            Self::PushChunks => "push in pieces of 16 MiB",
            Self::Pull => "pull",
            Self::PushSmall => "push small blobs",
            Self::PullSmall => "pull small blobs",
            Self::PullAtOnce => "pull at once",
            Self::Hash => "SHA-256 of the push",
            Self::Disk => "disk of the push",
            Self::Floor => "socket to disk of the push",
        }
    }
}

/// What one measure gave for one server, in its best round.
#[derive(Debug, Clone)]
pub struct Figure {
    pub measure: Measure,
    /// `None` for what is measured without a server.
    pub server: Option<Kind>,
    /// How often, and how many bytes each.
    pub count: u64,
    pub bytes: u64,
    pub seconds: f64,
    /// Processor time of the server in that round, in seconds.
    pub cpu: f64,
    /// Most memory of the server in any round, in bytes.
    pub peak: u64,
}

/// Measures everything in every round and keeps the best of each.
pub fn measure(
    servers: &[Server],
    directory: &Path,
    sizes: &Sizes,
    rounds: u64,
    only: &str,
) -> anyhow::Result<Vec<Figure>> {
    let cairn = servers.iter().find(|server| server.kind == Kind::Cairn).context("cairn is missing")?;
    let mut figures: Vec<Figure> = Vec::new();
    for round in 1..=rounds {
        let mut bench = Bench { sizes, directory, cairn, number: round << 16 };
        for measure in Measure::ALL.into_iter().filter(|measure| measure.name().contains(only)) {
            for figure in bench.round(measure, servers)? {
                eprintln!("round {round}: {}: {:.3} s", figure.title(), figure.seconds);
                let known = figures.iter_mut().find(|known| known.title() == figure.title());
                match known {
                    None => figures.push(figure),
                    Some(known) => {
                        let peak = known.peak.max(figure.peak);
                        if figure.seconds < known.seconds {
                            *known = figure;
                        }
                        known.peak = peak;
                    }
                }
            }
        }
    }
    Ok(figures)
}

impl Figure {
    pub fn title(&self) -> String {
        let server = self.server.map_or(String::new(), |server| format!(", {}", server.name()));
        format!("{}{server}", self.measure.name())
    }
}

struct Bench<'a> {
    sizes: &'a Sizes,
    directory: &'a Path,
    cairn: &'a Server,
    /// Of the last content; no two pushes have the same.
    number: u64,
}

impl Bench<'_> {
    fn content(&mut self, length: u64) -> anyhow::Result<(Content, String)> {
        self.number += 1;
        let mut content = Content::new(self.number, length);
        let digest = content.digest()?;
        Ok((content, digest))
    }

    fn round(&mut self, measure: Measure, servers: &[Server]) -> anyhow::Result<Vec<Figure>> {
        let large = self.sizes.large;
        match measure {
            Measure::Hash => {
                let mut content = Content::new(0, large);
                let begun = Instant::now();
                content.digest()?;
                return Ok(vec![alone(measure, large, begun)]);
            }
            Measure::Disk => return Ok(vec![self.disk(large)?]),
            Measure::Floor => return Ok(vec![self.floor(large)?]),
            _ => {}
        }
        let gives_only = |server: &&Server| server.kind != Kind::Nginx;
        let pushes = matches!(measure, Measure::Push | Measure::PushChunks | Measure::PushSmall);
        let mut figures = Vec::new();
        for server in servers.iter().filter(|server| !pushes || gives_only(server)) {
            let figure = match measure {
                Measure::Push | Measure::PushChunks => self.push(measure, server, large)?,
                Measure::Pull => self.pull(server, large)?,
                Measure::PushSmall => self.push_small(server)?,
                Measure::PullSmall => self.pull_small(server)?,
                _ => self.pull_at_once(server)?,
            };
            figures.push(figure);
        }
        Ok(figures)
    }

    fn disk(&self, length: u64) -> anyhow::Result<Figure> {
        let path = self.directory.join("alone");
        let mut content = Content::new(0, length);
        rest();
        let begun = Instant::now();
        let mut file = File::create(&path)?;
        content.each(0, length, |bytes| file.write_all(bytes))?;
        file.sync_all()?;
        let figure = alone(Measure::Disk, length, begun);
        fs::remove_file(path)?;
        Ok(figure)
    }

    fn floor(&self, length: u64) -> anyhow::Result<Figure> {
        let path = self.directory.join("alone");
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        let (mut taken, _) = listener.accept()?;
        let mut content = Content::new(0, length);
        rest();
        let begun = Instant::now();
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let taking = scope.spawn(|| -> std::io::Result<u64> {
                let mut file = File::create(&path)?;
                let (mut buffer, mut sum) = (vec![0; PIECE], 0);
                loop {
                    let count = taken.read(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    file.write_all(&buffer[..count])?;
                    sum += count as u64;
                }
                file.sync_all()?;
                Ok(sum)
            });
            content.each(0, length, |bytes| stream.write_all(bytes))?;
            stream.shutdown(Shutdown::Write)?;
            let sum = taking.join().map_err(|_| anyhow::anyhow!("whoever takes the bytes panicked"))??;
            anyhow::ensure!(sum == length, "{sum} bytes arrived and not {length}");
            Ok(())
        })?;
        let figure = alone(Measure::Floor, length, begun);
        fs::remove_file(path)?;
        Ok(figure)
    }

    fn push(&mut self, measure: Measure, server: &Server, length: u64) -> anyhow::Result<Figure> {
        let (mut content, digest) = self.content(length)?;
        let mut client = Client::connect(server.address)?;
        timed(measure, server, (1, length), || match measure {
            Measure::PushChunks => client.push_chunks(&mut content, &digest, CHUNK),
            _ => client.push(&mut content, &digest),
        })
    }

    fn push_small(&mut self, server: &Server) -> anyhow::Result<Figure> {
        let count = self.sizes.small_count;
        let mut contents = (0..count).map(|_| self.content(SMALL)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut client = Client::connect(server.address)?;
        timed(Measure::PushSmall, server, (count, SMALL), || {
            contents.iter_mut().try_for_each(|(content, digest)| client.push(content, digest))
        })
    }

    /// Makes content available and returns its path. nginx gives a file that Cairn has stored.
    fn offer(&mut self, server: &Server, length: u64) -> anyhow::Result<String> {
        let (mut content, digest) = self.content(length)?;
        let keeper = if server.kind == Kind::Nginx { self.cairn } else { server };
        Client::connect(keeper.address)?.push(&mut content, &digest)?;
        if server.kind == Kind::Nginx {
            let hex = digest.trim_start_matches("sha256:");
            fs::hard_link(keeper.directory.join("blobs/sha256").join(hex), server.directory.join(hex))?;
            return Ok(format!("/{hex}"));
        }
        Ok(format!("/v2/bench/blobs/{digest}"))
    }

    fn pull(&mut self, server: &Server, length: u64) -> anyhow::Result<Figure> {
        let path = self.offer(server, length)?;
        let mut client = Client::connect(server.address)?;
        timed(Measure::Pull, server, (1, length), || pulled(&mut client, &path, length))
    }

    fn pull_small(&mut self, server: &Server) -> anyhow::Result<Figure> {
        let count = self.sizes.small_count;
        let paths = (0..count).map(|_| self.offer(server, SMALL)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut client = Client::connect(server.address)?;
        timed(Measure::PullSmall, server, (count, SMALL), || {
            paths.iter().try_for_each(|path| pulled(&mut client, path, SMALL))
        })
    }

    fn pull_at_once(&mut self, server: &Server) -> anyhow::Result<Figure> {
        let (length, count) = (self.sizes.shared, self.sizes.at_once);
        let path = self.offer(server, length)?;
        let clients = (0..count).map(|_| Client::connect(server.address)).collect::<anyhow::Result<Vec<_>>>()?;
        timed(Measure::PullAtOnce, server, (count, length), || {
            std::thread::scope(|scope| {
                let pulls: Vec<_> = clients
                    .into_iter()
                    .map(|mut client| {
                        let path = &path;
                        scope.spawn(move || pulled(&mut client, path, length))
                    })
                    .collect();
                pulls.into_iter().try_for_each(|pull| pull.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            })
        })
    }
}

fn pulled(client: &mut Client, path: &str, length: u64) -> anyhow::Result<()> {
    let got = client.pull(path)?;
    anyhow::ensure!(got == length, "{got} bytes of {path} and not {length}");
    Ok(())
}

fn alone(measure: Measure, bytes: u64, begun: Instant) -> Figure {
    let seconds = begun.elapsed().as_secs_f64();
    Figure { measure, server: None, count: 1, bytes, seconds, cpu: 0.0, peak: 0 }
}

/// What has been written before is on the disk before something is timed.
fn rest() {
    rustix::fs::sync();
}

fn timed(
    measure: Measure,
    server: &Server,
    (count, bytes): (u64, u64),
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Figure> {
    rest();
    server.forget_peak();
    let (cpu, begun) = (server.cpu(), Instant::now());
    work().with_context(|| format!("{}, {}", measure.name(), server.kind.name()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let (cpu, peak) = (server.cpu() - cpu, server.peak());
    Ok(Figure { measure, server: Some(server.kind), count, bytes, seconds, cpu, peak })
}
