//! A repository with a flake that needs nothing from outside: what it calls systems are directories that busybox makes.

use std::path::PathBuf;
use std::process::Command;

use reach::git::{Mirror, Protocol, Repository, Worktree};
use tempfile::TempDir;

const FLAKE: &str = r#"{
  outputs = { self }:
    let
      busybox = builtins.path { path = ./bin; name = "bin"; } + "/busybox";
      system = name: script: {
        config.system.build.toplevel = derivation {
          inherit name busybox;
          system = builtins.currentSystem or "x86_64-linux";
          builder = busybox;
          args = [ "sh" "-c" script ];
        };
      };
      grow = times: text: if times == 0 then text else grow (times - 1) (text + text);
    in {
      nixosConfigurations = {
        web1 = system "nixos-system-web1" ''$busybox mkdir $out; echo version ${builtins.readFile ./version} >$out/version'';
        failing = system "nixos-system-failing" ''for n in 1 2 3; do echo line $n; done; echo it is broken >&2; exit 3'';
        huge = system "nixos-system-huge" (toString (builtins.stringLength (grow 40 "text")));
        wrong = system "nixos-system-wrong" (throw "no such option");
        impure = system "nixos-system-impure" (builtins.readFile "/etc/passwd");
        other.config = { };
      };
    };
}
"#;

pub(crate) struct Flake {
    directory: TempDir,
}

impl Flake {
    pub(crate) fn new() -> Self {
        let flake = Self { directory: tempfile::tempdir().unwrap() };
        flake.git(&["init", "--quiet", "-b", "main"]);
        flake.git(&["config", "uploadpack.allowFilter", "true"]);
        std::fs::create_dir(flake.path("bin")).unwrap();
        std::fs::copy("/bin/busybox", flake.path("bin/busybox")).unwrap();
        std::fs::write(flake.path("flake.nix"), FLAKE).unwrap();
        flake.commit("1");
        flake
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn commit(&self, version: &str) {
        std::fs::write(self.path("version"), version).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "--quiet", "-m", version]);
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(self.directory.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(command.status().unwrap().success(), "git {arguments:?}");
    }

    /// The tree of the latest commit, through a mirror below `directory`.
    pub(crate) async fn tree(&self, directory: &std::path::Path) -> (Mirror, Worktree) {
        let url = format!("file://{}", self.directory.path().display());
        let repository = Repository { protocols: vec![Protocol::File], ..Repository::new(url) };
        let mirror = Mirror::open(directory, repository).await.unwrap();
        let commit = mirror.resolve("main").await.unwrap();
        let tree = mirror.worktree(&commit).await.unwrap();
        (mirror, tree)
    }
}
