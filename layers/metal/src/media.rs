//! What BMCs fetch: paths, their signatures, byte ranges and the overlay of a task on the maintenance ISO. Pure.

use jiff::Timestamp;

use crate::model::{JobId, TaskIso};
use crate::tokens::{Match, Secrets};

/// One of a job's media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// The task alone, for the second slot of a BMC.
    Task,
    /// The maintenance ISO alone, for the first slot of a BMC.
    Maintenance,
    /// The maintenance ISO with the task laid over its reserved room, for a BMC with one slot.
    Boot,
}

impl Medium {
    /// Last segment of the path.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Task => "task.iso",
            Self::Maintenance => "maintenance.iso",
            Self::Boot => "boot.iso",
        }
    }

    /// The medium with this last segment.
    pub fn of_file_name(name: &str) -> Option<Self> {
        [Self::Task, Self::Maintenance, Self::Boot].into_iter().find(|medium| medium.file_name() == name)
    }
}

/// The path that is signed, whatever form the URL has.
pub fn canonical_path(job: JobId, medium: Medium) -> String {
    format!("/media/tasks/{job}/{}", medium.file_name())
}

/// A signed path that ends in `.iso` (many BMCs refuse any other): the proof is in the path, not in the query.
pub fn signed_path(secrets: &Secrets, job: JobId, medium: Medium, iso: &TaskIso) -> String {
    let expires = iso.url_expires;
    let signature = secrets.sign_media(&canonical_path(job, medium), expires, &iso.sha256);
    format!("/media/s/{expires}/{signature}/{job}/{}", medium.file_name())
}

/// Why a request for media is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The signature is missing or not ours.
    Tampered,
    /// It was ours until a while ago.
    Expired,
}

/// How far two clocks may differ, in seconds (design 033).
const SKEW: i64 = 60;

/// Judges a signature.
pub fn check(
    secrets: &Secrets,
    job: JobId,
    medium: Medium,
    iso: &TaskIso,
    expires: i64,
    signature: &str,
    now: Timestamp,
) -> Result<Match, Refused> {
    let matched =
        secrets.check_media(signature, &canonical_path(job, medium), expires, &iso.sha256).ok_or(Refused::Tampered)?;
    if now.as_second() > expires.saturating_add(SKEW) { Err(Refused::Expired) } else { Ok(matched) }
}

/// A run of bytes of one of two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// From the task ISO, otherwise from the maintenance ISO.
    pub from_task: bool,
    /// First byte in that file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

/// Where the maintenance ISO keeps room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// The bytes `start..start + length` of the maintenance ISO (`total` bytes) with a task of `task` bytes over `room`.
pub fn overlay(total: u64, room: Room, task: u64, start: u64, length: u64) -> Vec<Piece> {
    let end = start.saturating_add(length).min(total);
    let over = task.min(room.length);
    let borders =
        [(0, room.offset, false), (room.offset, room.offset + over, true), (room.offset + over, total, false)];
    borders
        .into_iter()
        .filter_map(|(from, to, from_task)| {
            let (from, to) = (from.max(start), to.min(end));
            let offset = if from_task { from.checked_sub(room.offset)? } else { from };
            (from < to).then(|| Piece { from_task, offset, length: to - from })
        })
        .collect()
}

/// What a `Range` header asks of `total` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// No range, or one in another unit or of many parts: the whole (RFC 9110 14.2 lets a server ignore it).
    Whole,
    /// First and last byte.
    Part { first: u64, last: u64 },
    /// It begins past the end.
    Unsatisfiable,
}

/// Reads a `Range` header.
pub fn range(header: Option<&str>, total: u64) -> Range {
    let Some(part) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else { return Range::Whole };
    let Some((first, last)) = part.split_once('-') else { return Range::Whole };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Range::Unsatisfiable,
            Ok(_) if total == 0 => Range::Unsatisfiable,
            Ok(suffix) => Range::Part { first: total.saturating_sub(suffix), last: total - 1 },
            Err(_) => Range::Whole,
        },
        (first, last) => {
            let Ok(first) = first.parse::<u64>() else { return Range::Whole };
            let Ok(last) = (if last.is_empty() { Ok(u64::MAX) } else { last.parse() }) else { return Range::Whole };
            if first >= total {
                Range::Unsatisfiable
            } else if last < first {
                Range::Whole
            } else {
                Range::Part { first, last: last.min(total - 1) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn iso() -> TaskIso {
        TaskIso { path: String::new(), sha256: "ab".repeat(32), size_bytes: 4096, url_expires: 1000 }
    }

    #[test]
    fn a_signature_holds_for_one_medium_until_it_expires() {
        let secrets = Secrets::new("secret".to_owned().into(), None);
        let job = JobId::new();
        let path = signed_path(&secrets, job, Medium::Task, &iso());
        let signature = path.split('/').nth(4).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let judge = |medium, expires, now| check(&secrets, job, medium, &iso(), expires, signature, at(now));
        assert!(path.ends_with("/task.iso"));
        assert_eq!(judge(Medium::Task, 1000, 1060), Ok(Match::Current));
        assert_eq!(judge(Medium::Task, 1000, 1061), Err(Refused::Expired));
        assert_eq!(judge(Medium::Boot, 1000, 10), Err(Refused::Tampered));
        assert_eq!(judge(Medium::Task, 9999, 10), Err(Refused::Tampered));
    }

    #[test]
    fn ranges_as_bmcs_send_them() {
        let part = |first, last| Range::Part { first, last };
        assert_eq!(range(None, 10), Range::Whole);
        assert_eq!(range(Some("bytes=0-3"), 10), part(0, 3));
        assert_eq!(range(Some("bytes=8-"), 10), part(8, 9));
        assert_eq!(range(Some("bytes=8-99"), 10), part(8, 9));
        assert_eq!(range(Some("bytes=-4"), 10), part(6, 9));
        assert_eq!(range(Some("bytes=-99"), 10), part(0, 9));
        assert_eq!(range(Some("bytes=10-"), 10), Range::Unsatisfiable);
        assert_eq!(range(Some("bytes=-0"), 10), Range::Unsatisfiable);
        assert_eq!(range(Some("bytes=5-4"), 10), Range::Whole);
        assert_eq!(range(Some("bytes=0-1,4-5"), 10), Range::Whole);
        assert_eq!(range(Some("lines=0-1"), 10), Range::Whole);
    }

    proptest! {
        #[test]
        fn the_overlay_is_the_task_inside_its_room_and_the_base_outside(
            before in 0u64..50, room in 1u64..50, after in 0u64..50, task in 0u64..60, start in 0u64..160, length in 0u64..160
        ) {
            let total = before + room + after;
            let base: Vec<u8> = vec![b'.'; usize::try_from(total).unwrap()];
            let over: Vec<u8> = vec![b'T'; usize::try_from(task).unwrap()];
            let mut whole = base.clone();
            for index in 0..task.min(room) {
                whole[usize::try_from(before + index).unwrap()] = b'T';
            }
            let room = Room { offset: before, length: room };
            let seen: Vec<u8> = overlay(total, room, task, start, length)
                .into_iter()
                .flat_map(|piece| {
                    let from = usize::try_from(piece.offset).unwrap();
                    let file = if piece.from_task { &over } else { &base };
                    file[from..from + usize::try_from(piece.length).unwrap()].to_vec()
                })
                .collect();
            let first = usize::try_from(start.min(total)).unwrap();
            let last = usize::try_from((start + length).min(total)).unwrap();
            prop_assert_eq!(&seen, &whole[first..last]);
        }
    }
}
