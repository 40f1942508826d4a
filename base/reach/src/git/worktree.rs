//! The files of one commit.

use std::path::{Path, PathBuf};

use host::LockFile;

use super::access::percent;
use super::mirror::Mirror;
use super::program::Program;
use super::{Commit, Error, repair};

/// Who has made a commit that only adds files.
const IDENTITY: &str = "cairn";

/// A directory with the files of one commit, until this value goes. What a killed process left of it goes when the mirror
/// is opened next.
#[derive(Debug)]
pub struct Worktree {
    trees: PathBuf,
    git: PathBuf,
    id: String,
    commit: Commit,
    revision: Commit,
    _lock: LockFile,
}

impl Mirror {
    /// Lays out the files of a commit; their contents are fetched as far as they are not here yet.
    ///
    /// # Errors
    /// [`Error::UnknownCommit`] when the commit was not resolved before; everything that keeps the server from answering.
    pub async fn worktree(&self, commit: &Commit) -> Result<Worktree, Error> {
        let lock = self.lock().await?;
        let program = self.program(&lock);
        self.expect(&program, commit).await?;
        let (trees, id) = (self.path().join("trees"), uuid::Uuid::new_v4().simple().to_string());
        let holder = format!("process {}", std::process::id());
        let tree_lock = LockFile::acquire(&trees.join(format!("{id}.lock")), &holder)?;
        let worktree = Worktree {
            id: id.clone(),
            git: self.git(),
            commit: commit.clone(),
            revision: commit.clone(),
            _lock: tree_lock,
            trees,
        };
        let access = self.access()?;
        let path = worktree.path().display().to_string();
        let arguments = ["worktree", "add", "--quiet", "--detach", "--force", "--", &path, commit.as_str()];
        program.run("check out", program.remote(&access, &arguments)).await?;
        Ok(worktree)
    }

    /// Adds files to a tree, or puts them in the place of those that are there. The tree is then that of a new commit, the
    /// same for the same commit and files, which is in no branch. The files go through git's index alone, so no link in
    /// the tree leads anywhere.
    ///
    /// # Errors
    /// [`Error::FilePath`] when a path leads out of the tree or into git's own files.
    pub async fn add_files(&self, worktree: &mut Worktree, files: &[(String, Vec<u8>)]) -> Result<(), Error> {
        if let Some((path, _)) = files.iter().find(|(path, _)| !stays_inside(path)) {
            return Err(Error::FilePath { path: path.clone() });
        }
        if files.is_empty() {
            return Ok(());
        }
        let lock = self.lock().await?;
        let tree = worktree.path();
        let program = Program { directory: &tree, repository: None, ..self.program(&lock) };
        let mut index = Vec::new();
        for (path, contents) in files {
            let command = program.local(&["hash-object", "-w", "--stdin"]).input(contents.clone());
            let id = program.run("add a file to", command).await?.text();
            index.extend_from_slice(format!("100644 {id}\t{path}\0").as_bytes());
        }
        let command = program.local(&["update-index", "--add", "--replace", "-z", "--index-info"]).input(index);
        program.run("add a file to", command).await?;
        let id = program.run("add a file to", program.local(&["write-tree"])).await?.text();
        let revision = commit_tree(&program, &worktree.revision, &id).await?;
        let access = self.access()?;
        let reset = program.remote(&access, &["reset", "--quiet", "--hard", revision.as_str(), "--"]);
        program.run("check out", reset).await?;
        worktree.revision = revision;
        Ok(())
    }
}

async fn commit_tree(program: &Program<'_>, parent: &Commit, tree: &str) -> Result<Commit, Error> {
    let date = program.local(&["show", "--no-patch", "--format=%ct", parent.as_str(), "--"]);
    // The date of its parent: the same files give the same commit, and so the same evaluation.
    let date = format!("@{} +0000", program.run("read", date).await?.text());
    let mut command = program.local(&["commit-tree", "-p", parent.as_str(), "-m", "Add files", tree]);
    for who in ["AUTHOR", "COMMITTER"] {
        let name = |what: &str| format!("GIT_{who}_{what}");
        command = command.env(name("NAME"), IDENTITY).env(name("EMAIL"), "cairn@localhost").env(name("DATE"), &date);
    }
    let text = program.run("add a file to", command).await?.text();
    let no_id = || Error::NotACommit { url: program.address.url.clone(), reference: text.clone() };
    Commit::parse(&text).ok_or_else(no_id)
}

impl Worktree {
    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.trees.join(&self.id)
    }

    /// The commit that was asked for.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The commit that the files are of: another one when files were added.
    pub fn revision(&self) -> &Commit {
        &self.revision
    }

    /// The flake in a directory of it (`""`: in its root), for Nix: by commit, so that nothing but the commit counts.
    ///
    /// # Errors
    /// [`Error::FilePath`] when the directory is not inside.
    pub fn flake_url(&self, directory: &str) -> Result<String, Error> {
        let directory = directory.trim_matches('/');
        let directory = directory.strip_prefix("./").unwrap_or(directory);
        let path = encoded(&self.path());
        if directory.is_empty() || directory == "." {
            return Ok(format!("git+file://{path}?rev={}", self.revision));
        }
        if !stays_inside(directory) {
            return Err(Error::FilePath { path: directory.to_owned() });
        }
        let directory = encoded(Path::new(directory));
        Ok(format!("git+file://{path}?dir={directory}&rev={}", self.revision))
    }
}

impl Drop for Worktree {
    fn drop(&mut self) {
        repair::remove_tree(&self.trees, &self.git, &self.id);
    }
}

fn encoded(path: &Path) -> String {
    path.to_string_lossy().split('/').map(percent).collect::<Vec<_>>().join("/")
}

/// Whether a path names something below where it starts, outside of git's own files.
fn stays_inside(path: &str) -> bool {
    let part = |part: &str| {
        let plain = !part.is_empty() && part != "." && part != "..";
        // Git knows other spellings of its directory on other systems, and refuses those itself.
        plain && !part.eq_ignore_ascii_case(".git")
    };
    !path.chars().any(|c| c.is_control() || c == '\\') && path.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_are_taken() {
        for path in ["hosts/web1/facter.json", "a", "a b/.gitignore"] {
            assert!(stays_inside(path), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", ".git/config", "a/.GIT/x", "a\0b", "a\\b"] {
            assert!(!stays_inside(path), "{path:?}");
        }
    }
}
