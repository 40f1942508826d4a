//! How an error is sorted at the edge, whatever layer it came from.

/// The kind of an error: it decides the exit code of a command and the status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It did not work, and none of the other kinds says why.
    Failed,
    /// The request or a setting is wrong; nothing was changed.
    Invalid,
    /// The thing that was named does not exist.
    NotFound,
    /// The thing is in a state that does not allow this, or somebody else was first.
    Conflict,
    /// Nobody said who they are, or the proof is wrong.
    Unauthorized,
    /// Known, but not allowed.
    Forbidden,
    /// Too many requests.
    RateLimited,
    /// A peer cannot be reached or did not answer in time.
    Unreachable,
    /// A part was done and a part was not.
    Partial,
    /// No room, or not at this moment.
    Unavailable,
    /// Ended by the user.
    Interrupted,
}

impl ErrorKind {
    /// Exit code of a command that ends with this kind: 0 done, 1 failed, 2 usage or settings, 3 not found,
    /// 4 conflict, 5 refused, 6 unreachable or timed out, 7 partly done, 130 interrupted.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unauthorized | Self::Forbidden | Self::RateLimited => 5,
            Self::Unreachable | Self::Unavailable => 6,
            Self::Partial => 7,
            Self::Interrupted => 130,
        }
    }

    /// HTTP status of a response that reports this kind.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Failed | Self::Partial => 500,
            Self::Invalid => 400,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::RateLimited => 429,
            Self::Unreachable => 502,
            Self::Unavailable => 503,
            // Of no standard, but known to proxies: who asked is gone.
            Self::Interrupted => 499,
        }
    }

    /// The kind that a response with this status reports; `None` for a status that is no error.
    pub fn of_http_status(status: u16) -> Option<Self> {
        Some(match status {
            0..400 => return None,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            429 => Self::RateLimited,
            499 => Self::Interrupted,
            400..500 => Self::Invalid,
            502 | 504 => Self::Unreachable,
            503 | 507 => Self::Unavailable,
            _ => Self::Failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_survives_the_way_over_http() {
        for kind in [
            ErrorKind::Failed,
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Unauthorized,
            ErrorKind::Forbidden,
            ErrorKind::RateLimited,
            ErrorKind::Unreachable,
            ErrorKind::Unavailable,
            ErrorKind::Interrupted,
        ] {
            assert_eq!(ErrorKind::of_http_status(kind.http_status()), Some(kind));
        }
        assert_eq!(ErrorKind::of_http_status(204), None);
    }
}
