//! Blobs that are larger than what the registry may use of memory: pushed in one piece and in chunks, and pulled. They are
//! made while they are sent and hashed while they come back.

use std::cell::Cell;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};
use testkit::disk;
use testkit::http::{self, Response};

use super::daemon::{Access, Registry};
use super::random::Bytes;
use crate::runner::CannotRun;
use crate::scripted::guest::hex;

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = &["htpasswd"];

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The most that the whole program may ever hold.
const MEMORY: u64 = 64 * MIB;
const CHUNK: u64 = 64 * MIB;
/// Between two looks at its memory, in bytes that went over the wire.
const LOOK: u64 = 8 * MIB;

pub(crate) fn two_gib(work: &Path) -> Result<()> {
    carried(work, &[Way::OnePiece, Way::Chunks], 2 * GIB)
}

pub(crate) fn ten_gib(work: &Path) -> Result<()> {
    carried(work, &[Way::Chunks], 10 * GIB)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// POST and PUT.
    OnePiece,
    /// POST, PATCH by PATCH, and PUT without a body.
    Chunks,
}

fn carried(work: &Path, ways: &[Way], size: u64) -> Result<()> {
    let (free, needed) = (disk::free(work)?, ways.len() as u64 * size + GIB);
    if free < needed {
        return Err(CannotRun(format!("{} GiB are free, {} are needed", free / GIB, needed / GIB)).into());
    }
    let registry = Registry::start(work, Access::Anonymous)?;
    let memory = Memory { process: registry.process()?, most: Cell::new(0) };
    let rest = memory.look()?;
    for (seed, way) in (1..).zip(ways) {
        let digest = format!("sha256:{}", hash(&mut Bytes::new(seed, size))?);
        let start = Instant::now();
        push(&registry, *way, &digest, &mut memory.watch(Bytes::new(seed, size)), size)?;
        let pushed = start.elapsed();
        let mut sink = memory.watch(Sha256::new());
        let url = format!("http://{}/v2/big/blob/blobs/{digest}", registry.authority());
        let answer = http::stream("GET", &url, &[], (&mut std::io::empty(), 0), &mut sink)?;
        expect(&answer, 200)?;
        ensure!(sink.bytes == size, "{} bytes came back of {size}", sink.bytes);
        ensure!(format!("sha256:{}", hex(&sink.inner.finalize())) == digest, "other bytes came back");
        let seconds = [pushed, start.elapsed() - pushed].map(|time| time.as_secs_f64());
        println!("  {} MiB, {way:?}: pushed in {:.1} s, pulled in {:.1} s", size / MIB, seconds[0], seconds[1]);
    }
    let ([rest, most], highest) = ([rest, memory.most.get()].map(|bytes| bytes / MIB), memory.highest()?);
    println!("  memory: {rest} MiB before, {most} MiB at most when looked at, {} MiB at the highest", highest / MIB);
    ensure!(highest < MEMORY, "the program held {} MiB", highest / MIB);
    Ok(())
}

fn push(registry: &Registry, way: Way, digest: &str, body: &mut dyn Read, size: u64) -> Result<()> {
    let base = format!("http://{}", registry.authority());
    let send = |method: &str, url: &str, range: Option<(u64, u64)>, body: &mut dyn Read, length: u64| {
        let range = range.map(|(first, last)| format!("{first}-{last}"));
        let mut headers = vec![("Content-Type", "application/octet-stream")];
        headers.extend(range.as_deref().map(|range| ("Content-Range", range)));
        http::stream(method, url, &headers, (body, length), &mut std::io::sink())
    };
    let begun = send("POST", &format!("{base}/v2/big/blob/blobs/uploads/"), None, &mut std::io::empty(), 0)?;
    let mut place = location(&base, &expect(&begun, 202)?)?;
    let mut sent = 0;
    while way == Way::Chunks && sent < size {
        let length = CHUNK.min(size - sent);
        let answer = send("PATCH", &place, Some((sent, sent + length - 1)), body, length)?;
        sent += length;
        ensure!(answer.header("range") == Some(&format!("0-{}", sent - 1)), "after {sent} bytes: {answer:?}");
        place = location(&base, &expect(&answer, 202)?)?;
    }
    let mark = if place.contains('?') { '&' } else { '?' };
    expect(&send("PUT", &format!("{place}{mark}digest={digest}"), None, body, size - sent)?, 201).map(drop)
}

fn expect(answer: &Response, status: u16) -> Result<Response> {
    ensure!(answer.status == status, "{status} was expected: {answer:?}");
    Ok(answer.clone())
}

fn location(base: &str, answer: &Response) -> Result<String> {
    let place = answer.header("location").context("no Location")?;
    Ok(if place.starts_with('/') { format!("{base}{place}") } else { place.to_owned() })
}

fn hash(bytes: &mut dyn Read) -> Result<String> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match bytes.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Resident memory of a process.
struct Memory {
    process: u32,
    /// The most that was seen.
    most: Cell<u64>,
}

impl Memory {
    /// Bytes now.
    fn look(&self) -> Result<u64> {
        let now = self.value("VmRSS:")?;
        self.most.set(self.most.get().max(now));
        Ok(now)
    }

    /// The most that the kernel has seen since the process began.
    fn highest(&self) -> Result<u64> {
        self.value("VmHWM:")
    }

    fn value(&self, key: &str) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let value =
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(value.with_context(|| format!("no {key} in {path}"))? * 1024)
    }

    /// Looks at the memory while bytes pass.
    fn watch<T>(&self, inner: T) -> Watched<'_, T> {
        Watched { inner, memory: self, bytes: 0 }
    }
}

struct Watched<'m, T> {
    inner: T,
    memory: &'m Memory,
    bytes: u64,
}

impl<T> Watched<'_, T> {
    fn passed(&mut self, count: usize) -> std::io::Result<usize> {
        let before = self.bytes / LOOK;
        self.bytes += count as u64;
        if self.bytes / LOOK > before {
            self.memory.look().map_err(std::io::Error::other)?;
        }
        Ok(count)
    }
}

impl<T: Read> Read for Watched<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.passed(count)
    }
}

impl Write for Watched<'_, Sha256> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.inner.update(buffer);
        self.passed(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
