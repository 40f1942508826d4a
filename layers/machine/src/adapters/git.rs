//! A repository of configurations, over a mirror.

use std::sync::Arc;

use cairn_core::chain;
use reach::git::{Commit as GitCommit, Error, Mirror, Worktree};
use secrecy::ExposeSecret as _;

use crate::errors;
use crate::model::{Commit, File};
use crate::plan::Fault;
use crate::ports::{Source, Tree};

/// A mirror as [`Source`]. Several machines of one repository share it.
#[derive(Debug, Clone)]
pub struct Git(Arc<Mirror>);

impl Git {
    /// A repository.
    pub fn new(mirror: Arc<Mirror>) -> Self {
        Self(mirror)
    }
}

impl Tree for Worktree {
    fn flake(&self, subdirectory: &str) -> Result<String, Fault> {
        self.flake_url(subdirectory).map_err(|error| fault(&error))
    }
}

impl Source for Git {
    type Tree = Worktree;

    async fn resolve(&self, reference: &str) -> Result<Commit, Fault> {
        let commit = self.0.resolve(reference).await.map_err(|error| fault(&error))?;
        let parsed = commit.as_str().parse::<Commit>();
        parsed.map_err(|error| Fault::lasting(cairn_core::ErrorKind::Failed, errors::MACHINE_GIT, error.to_string()))
    }

    async fn tree(&self, commit: &Commit, subdirectory: &str, files: &[&File]) -> Result<Worktree, Fault> {
        let none =
            || Fault::lasting(cairn_core::ErrorKind::Failed, errors::MACHINE_GIT, format!("{commit} is no commit"));
        let id = GitCommit::parse(commit.as_str()).ok_or_else(none)?;
        let mut tree = self.0.worktree(&id).await.map_err(|error| fault(&error))?;
        let below = |path: &str| match subdirectory.trim_matches('/') {
            "" | "." => path.to_owned(),
            directory => format!("{directory}/{path}"),
        };
        let files: Vec<_> =
            files.iter().map(|file| (below(&file.path), file.content.expose_secret().as_bytes().to_vec())).collect();
        self.0.add_files(&mut tree, &files).await.map_err(|error| fault(&error))?;
        Ok(tree)
    }
}

/// What Git says, sorted.
pub fn fault(error: &Error) -> Fault {
    let kind = error.kind();
    let code = match error {
        Error::FilePath { .. } => errors::MACHINE_FILES,
        _ => errors::MACHINE_GIT,
    };
    Fault {
        kind,
        code,
        message: chain(error),
        log: error.hint().unwrap_or_default().to_owned(),
        may_pass: kind == cairn_core::ErrorKind::Unreachable,
    }
}
