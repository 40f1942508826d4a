//! The users file: `NAME:HASH` a line, as Apache's htpasswd writes it with `-B`.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use web::{AuthError, BasicAuth, Credentials, Proof};

/// How long a look at the file holds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most that is read of it, in bytes: ten thousand users.
const LARGEST: u64 = 1 << 20;

/// Why the users file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read the users file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device: reading it may never end.
    #[error("the users file {} is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// Others than its owner may change it, and so become a user.
    #[error("the users file {} has mode {mode:04o}: only its owner may write it", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than what is read of it.
    #[error("the users file {} is larger than {LARGEST} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is no user.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong; never the line itself.
        reason: String,
    },
    /// Nobody is in it.
    #[error("the users file {} has no users", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its users cannot be used.
    #[error("the users file {} cannot be used", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        #[source]
        source: AuthError,
    },
}

impl UsersError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Writable { path, .. } => format!("chmod go-w {}", path.display()),
            Self::NotAFile { path } => format!("put a regular file in place of {}", path.display()),
            Self::TooLarge { path } => format!("take users out of {}", path.display()),
            Self::Read { path, .. } | Self::Line { path, .. } | Self::Empty { path } | Self::Users { path, .. } => {
                format!("add a user: htpasswd -B {} NAME", path.display())
            }
        }
    }
}

/// Makes a login of a list of users.
pub(crate) type Build = Box<dyn Fn(Vec<Credentials>) -> Result<BasicAuth, AuthError> + Send + Sync>;

/// The users of a file, read again when it changes.
pub(crate) struct UsersFile {
    path: PathBuf,
    build: Build,
    current: Mutex<Current>,
}

struct Current {
    stamp: Option<Stamp>,
    looked: Instant,
    /// `None` when the last reading left nobody.
    auth: Option<Arc<BasicAuth>>,
}

/// What changes when a file does, also when it is replaced by another of the same age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl UsersFile {
    /// Reads the file at start: every line has to be a user.
    pub(crate) fn open(path: &Path, build: Build) -> Result<Arc<Self>, UsersError> {
        let read = read(path)?;
        if let Some(error) = read.wrong.into_iter().next() {
            return Err(error);
        }
        if read.users.is_empty() {
            return Err(UsersError::Empty { path: path.to_owned() });
        }
        let auth = build(read.users).map_err(|source| UsersError::Users { path: path.to_owned(), source })?;
        let current = Current { stamp: Some(read.stamp), looked: Instant::now(), auth: Some(Arc::new(auth)) };
        Ok(Arc::new(Self { path: path.to_owned(), build, current: Mutex::new(current) }))
    }

    /// The login of the users as they are now; `None` when there are none.
    pub(crate) async fn login(self: &Arc<Self>) -> Option<Arc<BasicAuth>> {
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.looked.elapsed() < LOOK_AGAIN {
                return current.auth.clone();
            }
            // Whoever comes while this one looks goes by what is known.
            current.looked = Instant::now();
        }
        let file = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || file.look()).await;
        looked.unwrap_or_else(|_| self.current.lock().unwrap_or_else(PoisonError::into_inner).auth.clone())
    }

    /// Reads the file again if it is another one than before. A user whose line is gone or broken is out; a file that
    /// cannot be read at all, as for a moment while an editor replaces it, leaves the users that were.
    fn look(&self) -> Option<Arc<BasicAuth>> {
        let known = self.current.lock().unwrap_or_else(PoisonError::into_inner).stamp;
        let stamp = std::fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata)).ok();
        if stamp == known {
            return self.current.lock().unwrap_or_else(PoisonError::into_inner).auth.clone();
        }
        let read = read(&self.path).and_then(|read| self.built(read));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok((stamp, auth)) => {
                current.stamp = Some(stamp);
                // Passwords that were remembered go with the login they belonged to.
                current.auth = auth;
            }
            Err(error) => {
                current.stamp = stamp;
                tracing::error!(error = &error as &dyn std::error::Error, "the users stay as they were");
            }
        }
        current.auth.clone()
    }

    /// The login of what was read; `None` where all users were taken out.
    fn built(&self, read: ReadUsers) -> Result<(Stamp, Option<Arc<BasicAuth>>), UsersError> {
        for error in read.wrong {
            tracing::error!(error = &error as &dyn std::error::Error, "a line of the users file is left out");
        }
        tracing::info!(path = %self.path.display(), users = read.users.len(), "users file read again");
        if read.users.is_empty() {
            tracing::error!(path = %self.path.display(), "the users file has no users: nobody can log in");
            return Ok((read.stamp, None));
        }
        let auth = (self.build)(read.users).map_err(|source| UsersError::Users { path: self.path.clone(), source })?;
        Ok((read.stamp, Some(Arc::new(auth))))
    }

    /// Lets the next login look at the file.
    #[cfg(test)]
    fn look_now(&self) {
        self.current.lock().unwrap().looked = Instant::now() - 2 * LOOK_AGAIN;
    }
}

struct ReadUsers {
    stamp: Stamp,
    users: Vec<Credentials>,
    wrong: Vec<UsersError>,
}

fn read(path: &Path) -> Result<ReadUsers, UsersError> {
    let failed = |source| UsersError::Read { path: path.to_owned(), source };
    // Opening a pipe that nobody writes to would wait for ever without the flag.
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
    let file = file.map_err(failed)?;
    // The mode of what was opened, not of what the name means by then.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(UsersError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(UsersError::Writable { path: path.to_owned(), mode });
    }
    if mode & 0o004 != 0 {
        tracing::warn!(path = %path.display(), "every user of this machine can read the users file");
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(UsersError::TooLarge { path: path.to_owned() });
    }
    let (mut users, mut wrong) = (Vec::<Credentials>::new(), Vec::new());
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned());
        match line.and_then(|line| user(line.trim(), &users)) {
            Ok(user) => users.push(user),
            Err(reason) => wrong.push(UsersError::Line { path: path.to_owned(), line: at + 1, reason }),
        }
    }
    Ok(ReadUsers { stamp: Stamp::of(&metadata), users, wrong })
}

fn user(line: &str, before: &[Credentials]) -> Result<Credentials, String> {
    let (name, hash) = line.split_once(':').ok_or("NAME:HASH was expected")?;
    if before.iter().any(|other| other.user == name) {
        return Err(format!("{name} is there twice"));
    }
    if !["$2a$", "$2b$", "$2y$", "$argon2id$"].iter().any(|prefix| hash.starts_with(prefix)) {
        return Err(format!("the password of {name} is neither a bcrypt nor an argon2id hash (htpasswd -B makes one)"));
    }
    let credentials = Credentials { user: name.to_owned(), proof: Proof::Hash(hash.into()) };
    BasicAuth::new("", vec![credentials.clone()]).map_err(|error| error.to_string())?;
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::http::{HeaderMap, header};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use web::Refusal;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    /// `secret`, with argon2id.
    const ARGON2ID: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$5Rk1FSnHEK4yQBQ2Bj5BO9Lp0MhM4+yVM5yJrLMmp3Y";

    fn bcrypt(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap().replacen("$2b$", "$2y$", 1)
    }

    fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn pipe(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    }

    fn open(path: &Path) -> Result<Arc<UsersFile>, UsersError> {
        UsersFile::open(path, Box::new(|users| BasicAuth::new("Shoal Registry", users)))
    }

    fn basic(pair: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)).parse().unwrap())])
    }

    async fn comes_in(file: &Arc<UsersFile>, pair: &str) -> bool {
        file.look_now();
        let auth = file.login().await.unwrap();
        match auth.authenticate(&basic(pair), CLIENT).await {
            Ok(_) => true,
            Err(refusal) => {
                assert_eq!(refusal, Refusal::Wrong);
                false
            }
        }
    }

    #[tokio::test]
    async fn a_change_of_the_file_holds_at_once_and_forgets_what_was_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        write(&path, format!("# people\n\nalice:{}\r\nbob:{}\n", bcrypt("a"), bcrypt("b")), 0o640);
        let file = open(&path).unwrap();
        assert!(comes_in(&file, "alice:a").await && comes_in(&file, "bob:b").await);
        assert!(!comes_in(&file, "bob:a").await);

        write(&path, format!("alice:{}\n", bcrypt("new")), 0o640);
        assert!(comes_in(&file, "alice:new").await);
        assert!(!comes_in(&file, "alice:a").await && !comes_in(&file, "bob:b").await);

        // A broken line costs its user and nobody else.
        write(&path, format!("alice\nbob:{}\n", bcrypt("b")), 0o640);
        assert!(comes_in(&file, "bob:b").await && !comes_in(&file, "alice:new").await);

        // So does one with a byte that is no text, in Latin-1 perhaps; a remark may have any.
        let line = [b"# \xfc\nj\xfcrgen:x\n", format!("alice:{}\n", bcrypt("again")).as_bytes()].concat();
        write(&path, line, 0o640);
        assert!(comes_in(&file, "alice:again").await && !comes_in(&file, "bob:b").await);
        write(&path, format!("bob:{}\n", bcrypt("b")), 0o640);
        assert!(comes_in(&file, "bob:b").await && !comes_in(&file, "alice:again").await);

        // What cannot be believed changes nothing; neither does a file that is gone.
        write(&path, format!("eve:{}\n", bcrypt("e")), 0o662);
        assert!(comes_in(&file, "bob:b").await && !comes_in(&file, "eve:e").await);
        let large = format!("eve:{}\n{}", bcrypt("e"), "#".repeat(LARGEST as usize));
        write(&path, &large, 0o640);
        assert!(comes_in(&file, "bob:b").await && !comes_in(&file, "eve:e").await);
        std::fs::remove_file(&path).unwrap();
        assert!(comes_in(&file, "bob:b").await);
        pipe(&path);
        assert!(comes_in(&file, "bob:b").await);
        std::fs::remove_file(&path).unwrap();

        write(&path, "# nobody\n", 0o640);
        file.look_now();
        assert!(file.login().await.is_none());
    }

    #[test]
    fn what_cannot_be_used_is_named_at_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let text = format!("alice:{}\n", bcrypt("a"));
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, true), (0o660, false), (0o602, false)] {
            write(&path, &text, mode);
            assert_eq!(open(&path).is_ok(), good, "{mode:o}");
        }
        for (text, wanted) in [
            ("", "has no users"),
            ("alice\n", ":1: NAME:HASH was expected"),
            ("\nalice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n", ":2: the password of alice is neither"),
            ("alice:$apr1$x$y\n", "neither a bcrypt nor an argon2id hash"),
            ("alice:$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g\n", "neither"),
            ("alice:$2y$05$short\n", "neither"),
            (":$2y$05$short\n", "cannot be a user name"),
            (&format!("alice:{0}\nalice:{0}\n", bcrypt("a")), ":2: alice is there twice"),
        ] {
            write(&path, text, 0o600);
            let error = cairn_core::chain(&open(&path).err().unwrap());
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains("$2y$"), "{error}");
        }
        write(&path, b"# \xfc\n\nj\xfcrgen:x\n", 0o600);
        let error = open(&path).err().unwrap().to_string();
        assert!(error.ends_with(":3: it is not UTF-8"), "{error}");
        write(&path, format!("alice:{ARGON2ID}\n"), 0o600);
        assert!(open(&path).is_ok());
        let error = open(&directory.path().join("none")).err().unwrap();
        assert!(error.to_string().starts_with("cannot read the users file"), "{error}");
        let fifo = directory.path().join("pipe");
        pipe(&fifo);
        for path in [directory.path(), &fifo] {
            let error = open(path).err().unwrap();
            assert!(error.to_string().ends_with("is not a regular file"), "{error}");
        }
    }
}
