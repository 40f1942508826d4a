//! What names mean, what a tree holds, what several do at once.

use cairn_core::ErrorKind;
use reach::git::{Commit, Error, Mirror};

use super::{Source, repository};

async fn open(source: &Source, directory: &tempfile::TempDir) -> Mirror {
    Mirror::open(directory.path(), repository(source.url())).await.unwrap()
}

#[tokio::test]
async fn a_name_counts_only_exactly() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let first = source.in_tree(&["rev-parse", "HEAD"]);
    source.in_tree(&["tag", "--annotate", "--message", "first", "v1"]);
    source.push("v1");
    source.in_tree(&["branch", "team/main"]);
    source.push("team/main");
    let second = source.commit("file", "two");
    let mirror = open(&source, &directory).await;
    for (name, expected) in [
        ("main", &second),
        ("refs/heads/main", &second),
        ("HEAD", &second),
        ("v1", &first),
        ("refs/tags/v1", &first),
        ("team/main", &first),
        (first.as_str(), &first),
        (first.to_uppercase().as_str(), &first),
    ] {
        assert_eq!(mirror.resolve(name).await.unwrap().as_str(), expected, "{name}");
    }
    for name in ["mai", "ain", "eam/main", "MAIN", "v", &second[..12], "refs/tags/main", "refs/heads/v1"] {
        let error = mirror.resolve(name).await.unwrap_err();
        assert!(matches!(error, Error::UnknownReference { .. }), "{name}: {error}");
    }
    let error = mirror.resolve(&"0123456789".repeat(4)).await.unwrap_err();
    assert!(matches!(error, Error::UnknownCommit { .. }), "{error}");
}

#[tokio::test]
async fn a_branch_and_a_tag_of_one_name_are_an_error_that_names_both() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let first = source.in_tree(&["rev-parse", "HEAD"]);
    source.in_tree(&["tag", "both"]);
    source.push("refs/tags/both");
    let second = source.commit("file", "two");
    source.in_tree(&["branch", "both"]);
    source.push("refs/heads/both");
    let mirror = open(&source, &directory).await;
    let error = mirror.resolve("both").await.unwrap_err();
    assert!(matches!(&error, Error::AmbiguousReference { branch, tag, .. } if *branch == second && *tag == first));
    assert_eq!((error.kind(), error.hint().unwrap()), (ErrorKind::Invalid, "write refs/heads/NAME or refs/tags/NAME"));
    assert_eq!(mirror.resolve("refs/heads/both").await.unwrap().as_str(), second);
    assert_eq!(mirror.resolve("refs/tags/both").await.unwrap().as_str(), first);
}

#[tokio::test]
async fn a_tag_of_a_tree_is_no_commit_and_a_repository_may_be_gone() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    source.in_tree(&["tag", "tree", "HEAD^{tree}"]);
    source.push("tree");
    let mirror = open(&source, &directory).await;
    assert!(matches!(mirror.resolve("tree").await, Err(Error::NotACommit { .. })));
    let url = format!("file://{}/gone.git", source.root().display());
    let gone = Mirror::open(directory.path(), repository(url)).await.unwrap();
    assert!(matches!(gone.resolve("main").await, Err(Error::RepositoryGone { .. })));
}

#[tokio::test]
async fn history_written_anew_and_branches_in_each_others_way_are_followed() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let first = Commit::parse(&source.in_tree(&["rev-parse", "HEAD"])).unwrap();
    let second = Commit::parse(&source.commit("file", "two")).unwrap();
    source.in_tree(&["branch", "a"]);
    source.push("a");
    let mirror = open(&source, &directory).await;
    mirror.resolve("a").await.unwrap();
    mirror.resolve("main").await.unwrap();
    assert!(mirror.is_ancestor(&first, &second).await.unwrap());
    source.git(&source.served(), &["branch", "-D", "a"]);
    source.in_tree(&["branch", "-m", "a", "a/b"]);
    source.push("a/b");
    assert!(matches!(mirror.resolve("a").await, Err(Error::UnknownReference { .. })));
    assert_eq!(mirror.resolve("a/b").await.unwrap(), second);
    source.in_tree(&["reset", "--quiet", "--hard", "HEAD^"]);
    let other = Commit::parse(&source.commit("file", "three")).unwrap();
    assert_eq!(mirror.resolve("main").await.unwrap(), other);
    assert!(!mirror.is_ancestor(&second, &other).await.unwrap());
    let lines = mirror.log(&second, &other, 10).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.subject.as_str()).collect::<Vec<_>>(), ["Write three to file"]);
    assert_eq!((lines[0].author.as_str(), &lines[0].commit), ("Ada", &other));
    let unknown = Commit::parse(&"ab".repeat(20)).unwrap();
    assert!(matches!(mirror.log(&unknown, &other, 10).await, Err(Error::UnknownCommit { .. })));
}

#[tokio::test]
async fn a_tree_is_of_one_commit_and_goes_with_its_owner() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let first = source.in_tree(&["rev-parse", "HEAD"]);
    source.commit("file", "two");
    // A hook of the served repository's kind in the tree does nothing; a submodule is not entered.
    let mirror = open(&source, &directory).await;
    let commit = mirror.resolve(&first).await.unwrap();
    let tree = mirror.worktree(&commit).await.unwrap();
    let path = tree.path();
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "one");
    assert_eq!(tree.flake_url("").unwrap(), format!("git+file://{}?rev={first}", path.display()));
    let below = tree.flake_url("./hosts/web/").unwrap();
    assert_eq!(below, format!("git+file://{}?dir=hosts/web&rev={first}", path.display()));
    assert!(matches!(tree.flake_url("../x"), Err(Error::FilePath { .. })));
    drop(tree);
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(mirror.path().join("trees")).unwrap().count(), 0);
    assert!(std::fs::read_dir(mirror.path().join("git/worktrees")).map_or(0, Iterator::count) == 0);
}

#[tokio::test]
async fn trees_without_an_owner_go_and_others_stay() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let mirror = open(&source, &directory).await;
    let commit = mirror.resolve("main").await.unwrap();
    let (kept, left) = (mirror.worktree(&commit).await.unwrap(), mirror.worktree(&commit).await.unwrap());
    // As after a kill: files and lock file are there, the lock is not held.
    let path = left.path();
    let (copy, lock) = (path.with_extension("copy"), path.with_extension("lock"));
    std::fs::rename(&path, &copy).unwrap();
    let about = std::fs::read(&lock).unwrap();
    drop(left);
    std::fs::rename(&copy, &path).unwrap();
    std::fs::write(&lock, about).unwrap();
    let mirror = open(&source, &directory).await;
    assert!(!path.exists() && !lock.exists());
    assert!(kept.path().join("file").exists());
    mirror.worktree(&commit).await.unwrap();
}

#[tokio::test]
async fn files_are_added_as_a_commit_that_is_always_the_same() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), source.root().join("tree/link")).unwrap();
    source.commit("file", "two");
    let mirror = open(&source, &directory).await;
    let commit = mirror.resolve("main").await.unwrap();
    let files = [("hosts/facter.json", "{}"), ("link/x", "inside"), ("file", "three")];
    let files = files.map(|(path, contents)| (path.to_owned(), contents.as_bytes().to_vec()));
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let mut tree = mirror.worktree(&commit).await.unwrap();
        mirror.add_files(&mut tree, &files).await.unwrap();
        assert_eq!(tree.commit(), &commit);
        for (path, contents) in &files {
            assert_eq!(&std::fs::read(tree.path().join(path)).unwrap(), contents, "{path}");
        }
        revisions.push(tree.revision().clone());
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "a link leads nowhere");
    assert!(revisions[0] == revisions[1] && revisions[0] != commit);
    let mut tree = mirror.worktree(&commit).await.unwrap();
    for path in ["../x", "/etc/x", ".git/hooks/post-checkout", "a/.GIT/x"] {
        let error = mirror.add_files(&mut tree, &[(path.to_owned(), Vec::new())]).await.unwrap_err();
        assert!(matches!(error, Error::FilePath { .. }), "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_wait_for_each_other() {
    let (source, directory) = (Source::new(), tempfile::tempdir().unwrap());
    let expected = source.commit("file", "two");
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (directory, repository) = (directory.path().to_owned(), repository(source.url()));
            tokio::spawn(async move {
                let mirror = Mirror::open(&directory, repository).await.unwrap();
                let commit = mirror.resolve("main").await.unwrap();
                let tree = mirror.worktree(&commit).await.unwrap();
                (commit.to_string(), std::fs::read_to_string(tree.path().join("file")).unwrap())
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), (expected.clone(), "two".to_owned()));
    }
}

#[tokio::test]
async fn contents_come_only_with_a_tree_and_servers_without_filters_work() {
    let directory = tempfile::tempdir().unwrap();
    for filters in ["true", "false"] {
        let source = Source::new();
        source.git(&source.served(), &["config", "uploadpack.allowFilter", filters]);
        source.commit("file", "two");
        let mirror = open(&source, &directory).await;
        let commit = mirror.resolve("main").await.unwrap();
        let repository = mirror.path().join("git");
        let arguments = ["rev-list", "--all", "--objects", "--missing=print"];
        let missing = source.git(&repository, &arguments).lines().filter(|line| line.starts_with('?')).count();
        assert_eq!(missing, if filters == "true" { 2 } else { 0 });
        let tree = mirror.worktree(&commit).await.unwrap();
        assert_eq!(std::fs::read_to_string(tree.path().join("file")).unwrap(), "two");
        let config = std::fs::read_to_string(repository.join("config")).unwrap();
        assert!(!config.contains("promisor") && !config.contains("extensions"), "{config}");
    }
}

#[tokio::test]
async fn a_protocol_has_to_be_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let repository = reach::git::Repository::new("file:///srv/a.git");
    let error = Mirror::open(directory.path(), repository).await.unwrap_err();
    assert!(matches!(error, Error::ProtocolNotAllowed { protocol: "file", .. }));
}
