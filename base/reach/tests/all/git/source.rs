//! A bare repository that servers serve, and a tree to push to it from.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) struct Source {
    directory: TempDir,
}

impl Source {
    /// One commit on the branch main: a file with `one` in it.
    pub(crate) fn new() -> Self {
        let source = Self { directory: tempfile::tempdir().unwrap() };
        source.git(source.directory.path(), &["init", "--quiet", "--bare", "served.git"]);
        source.git(source.directory.path(), &["init", "--quiet", "-b", "main", "tree"]);
        source.git(&source.served(), &["config", "uploadpack.allowFilter", "true"]);
        source.git(&source.served(), &["symbolic-ref", "HEAD", "refs/heads/main"]);
        source.commit("file", "one");
        source
    }

    pub(crate) fn served(&self) -> PathBuf {
        self.directory.path().join("served.git")
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.served().display())
    }

    /// Writes a file, commits, pushes main, and gives back the commit's id.
    pub(crate) fn commit(&self, path: &str, contents: &str) -> String {
        let tree = self.directory.path().join("tree");
        std::fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        std::fs::write(tree.join(path), contents).unwrap();
        self.in_tree(&["add", "--all"]);
        self.in_tree(&["commit", "--quiet", "--message", &format!("Write {contents:.40} to {path}")]);
        self.push("main");
        self.in_tree(&["rev-parse", "HEAD"])
    }

    pub(crate) fn push(&self, reference: &str) {
        let served = self.served().display().to_string();
        self.in_tree(&["push", "--quiet", "--force", &served, reference]);
    }

    pub(crate) fn in_tree(&self, arguments: &[&str]) -> String {
        self.git(&self.directory.path().join("tree"), arguments)
    }

    pub(crate) fn git(&self, directory: &Path, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
