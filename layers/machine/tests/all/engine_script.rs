//! The host's half for real, in /bin/sh, with `systemd-run`, `systemctl` and `nix-env` that keep their real ones' rules
//! in files: a unit that is loaded is not made again, a timer starts its service, a stopped unit's processes are gone.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use machine::activation::{Answered, INSTALL, Remote, SCRIPT, Shell};
use machine::model::{Activation, Delivery, DeploymentId, File, HealthCheck, Probe, StorePath};
use machine::plan::Fault;
use machine::ports::{Host as _, Order};

/// A directory that stands for a host's root. Store paths are real names below it.
struct Place {
    directory: tempfile::TempDir,
}

const OLD: &str = "/nix/store/1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-old";
const NEW: &str = "/nix/store/0c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-new";

const SYSTEMD_RUN: &str = r#"#!/bin/sh
# Makes a unit: a directory with its description, its command and whether it runs.
units=$ROOT/units timer='' stay='' name='' description='' kind=''
while :; do case $1 in
--unit=*) name=${1#--unit=} ;;
--description=*) description=${1#--description=} ;;
--on-active=*) timer=1 ;;
--remain-after-exit) stay=1 ;;
--service-type=*) kind=${1#--service-type=} ;;
-*) ;;
*) break ;;
esac; shift; done
printf 'run %s\n' "$name" >>"$ROOT/told"
if [ -e "$ROOT/refuse-$name" ]; then echo "Failed to start transient unit: refused" >&2; exit 1; fi
# One name, one unit: the directory is made by one caller only.
if ! mkdir "$units/$name.service" 2>/dev/null; then
    echo "Failed to start transient service unit: Unit $name.service was already loaded." >&2; exit 1
fi
printf '%s' "$description" >"$units/$name.service/description"
printf '%s\n' "$@" >"$units/$name.service/argv"
if [ -n "$timer" ]; then
    mkdir "$units/$name.timer"; printf '%s' "$description" >"$units/$name.timer/description"
    printf active >"$units/$name.timer/state"; printf inactive >"$units/$name.service/state"; exit 0
fi
printf active >"$units/$name.service/state"
start() {
    "$@" >/dev/null 2>&1; code=$?
    if [ -n "$stay" ] && [ "$code" -eq 0 ]; then return 0; fi
    rm -rf "$units/$name.service"
    return "$code"
}
if [ "$kind" = oneshot ]; then start "$@"; else start "$@" & fi
exit 0
"#;

const SYSTEMCTL: &str = r#"#!/bin/sh
units=$ROOT/units; verb=$1; shift
printf 'systemctl %s %s\n' "$verb" "$*" >>"$ROOT/told"
case $verb in
show) for unit; do :; done
    if [ ! -d "$units/$unit" ]; then printf 'LoadState=not-found\nActiveState=inactive\nDescription=%s\n' "$unit"; exit 0; fi
    printf 'LoadState=loaded\nActiveState=%s\nDescription=%s\n' "$(cat "$units/$unit/state")" "$(cat "$units/$unit/description")" ;;
list-units) cat "$ROOT/failed" 2>/dev/null ;;
is-active) shift; for unit; do cat "$ROOT/state-$unit"; done ;;
stop) for unit; do case $unit in
    cairn-rollback.timer)
        if [ "$(cat "$units/cairn-rollback.service/state" 2>/dev/null)" = inactive ]; then rm -rf "$units/cairn-rollback.service"; fi
        rm -rf "${units:?}/$unit" ;;
    *) rm -rf "${units:?}/$unit" ;;
    esac; done ;;
start) wait=1; if [ "$1" = --no-block ]; then wait=''; shift; fi
    [ -d "$units/$1" ] || { echo "Unit $1 not found." >&2; exit 5; }
    printf active >"$units/$1/state"
    run() { set -f; IFS='
'; set -- $(cat "$units/$1/argv") ; unset IFS; "$@" >/dev/null 2>&1; rm -rf "$units/cairn-rollback.service"; }
    if [ -n "$wait" ]; then run "$1"; else run "$1" & fi ;;
esac
exit 0
"#;

const NIX_ENV: &str = r#"#!/bin/sh
printf 'nix-env %s\n' "$*" >>"$ROOT/told"
if [ -e "$ROOT/full" ] && [ "$4" = "$(cat "$ROOT/full")" ]; then echo 'No space left on device' >&2; exit 1; fi
ln -sfn "$4" "$2"
"#;

/// What stands for a system: activating it makes it the current one, and says so.
const SWITCH: &str = r#"#!/bin/sh
self=$(dirname "$(dirname "$(readlink -f "$0")")")
printf 'switch %s %s\n' "$(basename "$self")" "$1" >>"$ROOT/told"
case $1 in
dry-activate) echo 'would stop the following units: gone.service'; echo 'would restart the following units: web.service, "q"\x' >&2 ;;
test) if [ -e "$self/hang" ]; then read -r _ <"$self/hang"; fi
    echo "activating $(basename "$self")"; ln -sfn "$self" "$ROOT/run/current-system"; exit "$(cat "$self/code" 2>/dev/null || echo 0)" ;;
boot) exit "$(cat "$self/boot-code" 2>/dev/null || echo 0)" ;;
esac
"#;

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for directory in ["bin", "units", "run", "nix/var/nix/profiles"] {
            std::fs::create_dir_all(place.path(directory)).unwrap();
        }
        place.program("bin/systemd-run", SYSTEMD_RUN);
        place.program("bin/systemctl", SYSTEMCTL);
        place.program("bin/nix-env", NIX_ENV);
        place.program("bin/nix-store", "#!/bin/sh\nprintf '%s\\n' \"$3-a\" /nix/store/both\n");
        for system in [OLD, NEW] {
            std::fs::create_dir_all(place.path(&format!("{}/bin", &system[1..]))).unwrap();
            place.program(&format!("{}/bin/switch-to-configuration", &system[1..]), SWITCH);
            std::fs::write(place.path(&format!("{}/kernel", &system[1..])), system).unwrap();
        }
        for link in ["run/current-system", "run/booted-system", "nix/var/nix/profiles/system"] {
            symlink(place.path(&OLD[1..]), place.path(link)).unwrap();
        }
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn write(&self, below: &str, text: &str) {
        std::fs::write(self.path(below), text).unwrap();
    }

    fn program(&self, below: &str, text: &str) {
        self.write(below, text);
        std::fs::set_permissions(self.path(below), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().filter(|line| !line.starts_with("systemctl show")).map(str::to_owned).collect()
    }

    /// What the host runs, and what it would start, by name.
    fn runs(&self) -> (String, String) {
        let name = |link: &str| {
            let path = std::fs::read_link(self.path(link)).unwrap();
            path.file_name().unwrap().to_string_lossy()[33..].to_owned()
        };
        (name("run/current-system"), name("nix/var/nix/profiles/system"))
    }

    /// Nothing of an activation is left: no unit, no root of the collector.
    fn is_clean(&self) -> bool {
        let empty = |below: &str| std::fs::read_dir(self.path(below)).map_or(true, |mut all| all.next().is_none());
        empty("units") && empty("nix/var/nix/gcroots")
    }

    fn fire_timer(&self) {
        self.script_command("systemctl", &["start", "cairn-rollback.service"]);
    }

    fn script_command(&self, program: &str, arguments: &[&str]) {
        let status = self.command(self.path("bin").join(program).to_str().unwrap(), arguments).status().unwrap();
        assert!(status.success());
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        command.args(arguments).env_clear().env("PATH", path).env("ROOT", self.directory.path());
        command
    }
}

impl Shell for &Place {
    async fn run(&self, argv: &[String], input: &[u8], _root: bool, _limit: Duration) -> Result<Answered, Fault> {
        use std::io::Write as _;
        // The same script, with another root.
        let root = self.directory.path().to_str().unwrap().to_owned();
        let below = |text: &str| {
            text.replace("\nroot=''\n", &format!("\nroot='{root}'\n"))
                .replace("/run/cairn", &format!("{root}/run/cairn"))
        };
        let is_script = input == SCRIPT.as_bytes();
        let input = if is_script {
            SCRIPT.replace("\nroot=''\n", &format!("\nroot='{root}'\n")).into_bytes()
        } else {
            input.to_vec()
        };
        let argv: Vec<String> = argv
            .iter()
            .map(|word| match word.as_str() {
                INSTALL => below(word),
                word if word.starts_with("/run/cairn") => format!("{root}{word}"),
                word if word == SCRIPT.len().to_string() => input.len().to_string(),
                word if word.starts_with("/nix/store/") => format!("{root}{word}"),
                word => word.to_owned(),
            })
            .collect();
        let words: Vec<&str> = argv[1..].iter().map(String::as_str).collect();
        let mut command = self.command(&argv[0], &words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writing.join();
        let stdout = String::from_utf8_lossy(&output.stdout).replace(&root, "").into_bytes();
        let code = output.status.code().map(|code| code as u32);
        Ok(Answered { code, stdout, stderr: output.stderr })
    }

    async fn dial(&self, _: &str, _: u16, _: Duration) -> Result<Result<(), String>, Fault> {
        Ok(Ok(()))
    }

    async fn reconnect(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn address(&self) -> String {
        "127.0.0.1".to_owned()
    }
}

fn new() -> StorePath {
    NEW.parse().unwrap()
}

/// Waits until the host is no longer busy with the activation.
#[allow(clippy::disallowed_methods, reason = "the host tells nobody; the limit is generous")]
async fn rested(host: &Remote<&Place>, id: DeploymentId) -> Activation {
    for _ in 0..600 {
        match host.activation(id).await.unwrap().0 {
            Activation::Underway(_) => std::thread::sleep(Duration::from_millis(100)),
            rested => return rested,
        }
    }
    panic!("the host is still busy")
}

async fn begun(place: &Place) -> (Remote<&Place>, DeploymentId, Activation) {
    let (host, id) = (Remote::new(place), DeploymentId::new());
    let system = new();
    host.begin(&Order { deployment: id, system: &system, confirm: Duration::from_secs(300) }).await.unwrap();
    let activation = rested(&host, id).await;
    (host, id, activation)
}

#[tokio::test]
async fn a_trial_is_armed_first_and_confirmed_once() {
    let place = Place::new();
    let (host, id, activation) = begun(&place).await;
    assert_eq!(activation, Activation::OnTrial, "{:?}", place.told());
    assert_eq!(place.runs(), ("nixos-system-new".to_owned(), "nixos-system-old".to_owned()));
    let told = place.told();
    let at = |line: &str| told.iter().position(|told| told == line).unwrap_or_else(|| panic!("no {line}: {told:?}"));
    let test = format!("switch {} test", &NEW[11..]);
    assert!(at("run cairn-activation") < at("run cairn-rollback") && at("run cairn-rollback") < at(&test));
    // A second begin, as after a kill, changes nothing.
    let system = new();
    let order = Order { deployment: id, system: &system, confirm: Duration::from_secs(300) };
    assert_eq!(host.begin(&order).await.unwrap().0, Activation::OnTrial);
    assert_eq!(place.told().iter().filter(|line| **line == test).count(), 1);
    // Another deployment is told who has the host.
    let other = Order { deployment: DeploymentId::new(), ..order };
    let held = host.begin(&other).await.unwrap().0;
    assert!(matches!(held, Activation::Held { holder, .. } if holder == id.to_string()));

    let (activation, running) = host.confirm(id).await.unwrap();
    assert_eq!(activation, Activation::Confirmed, "{:?}", place.told());
    assert!(running.is(&system) && running.reboot_required);
    assert_eq!(host.confirm(id).await.unwrap().0, Activation::Confirmed);
    assert_eq!(host.roll_back(id).await.unwrap().0, Activation::Confirmed, "what is confirmed stays");
    assert_eq!(place.told().iter().filter(|line| line.starts_with("nix-env")).count(), 1);
    assert!(place.is_clean());
    host.forget(id).await.unwrap();
    assert_eq!(host.activation(id).await.unwrap().0, Activation::Absent);
}

#[tokio::test]
async fn nobody_confirms_and_the_old_system_comes_back() {
    let place = Place::new();
    let (host, id, _) = begun(&place).await;
    place.fire_timer();
    let Activation::RolledBack { reason, log } = host.activation(id).await.unwrap().0 else { panic!() };
    assert_eq!(reason, "it was not confirmed in time");
    assert!(log.contains("activating 1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-old"), "{log}");
    assert_eq!(place.runs(), ("nixos-system-old".to_owned(), "nixos-system-old".to_owned()));
    // Too late.
    assert!(matches!(host.confirm(id).await.unwrap().0, Activation::RolledBack { .. }));
    assert_eq!(place.runs().1, "nixos-system-old");
    assert!(place.is_clean());
}

#[tokio::test]
async fn a_failed_activation_goes_back_by_itself() {
    let place = Place::new();
    place.write(&format!("{}/code", &NEW[1..]), "4");
    let (_, _, activation) = begun(&place).await;
    let Activation::RolledBack { reason, .. } = activation else { panic!("{activation:?} {:?}", place.told()) };
    assert_eq!(reason, "the activation ended with 4");
    assert_eq!(place.runs().0, "nixos-system-old");
    assert!(place.is_clean());
}

#[tokio::test]
async fn the_verdict_is_taken_once() {
    let place = Place::new();
    let (host, id, _) = begun(&place).await;
    // The timer fires at the moment of the confirmation.
    std::thread::scope(|scope| {
        scope.spawn(|| place.fire_timer_or_not());
        scope.spawn(|| futures::executor::block_on(Remote::new(&place).confirm(id)).map(drop));
    });
    let (activation, runs) = (rested(&host, id).await, place.runs());
    match activation {
        Activation::Confirmed => assert_eq!(runs, ("nixos-system-new".to_owned(), "nixos-system-new".to_owned())),
        Activation::RolledBack { .. } => {
            assert_eq!(runs, ("nixos-system-old".to_owned(), "nixos-system-old".to_owned()));
        }
        other => panic!("{other:?}"),
    }
}

impl Place {
    /// As the timer does, unless it was stopped meanwhile.
    fn fire_timer_or_not(&self) {
        let program = self.path("bin/systemctl");
        let _ = self.command(program.to_str().unwrap(), &["start", "cairn-rollback.service"]).status();
    }
}

#[tokio::test]
async fn a_confirmation_that_finds_the_disk_full_goes_back() {
    let place = Place::new();
    let (host, id, _) = begun(&place).await;
    place.write("full", place.path(&NEW[1..]).to_str().unwrap());
    let (activation, _) = host.confirm(id).await.unwrap();
    assert!(matches!(activation, Activation::RolledBack { .. }), "{activation:?}");
    assert_eq!(place.runs(), ("nixos-system-old".to_owned(), "nixos-system-old".to_owned()));
    assert!(place.is_clean());
}

#[tokio::test]
async fn nothing_is_tried_without_a_way_back() {
    let place = Place::new();
    place.write("refuse-cairn-rollback", "");
    let (host, id) = (Remote::new(&place), DeploymentId::new());
    let system = new();
    let order = Order { deployment: id, system: &system, confirm: Duration::from_secs(300) };
    let _ = host.begin(&order).await;
    let Activation::NotBegun { reason } = rested(&host, id).await else { panic!("{:?}", place.told()) };
    assert_eq!(reason, "the way back cannot be armed");
    assert!(!place.told().iter().any(|line| line.ends_with(" test")));
    assert!(place.is_clean());
}

#[tokio::test]
async fn a_preview_has_units_and_closures() {
    let place = Place::new();
    let host = Remote::new(&place);
    let preview = host.preview(&new()).await.unwrap();
    assert_eq!((preview.stop, preview.restart.len()), (vec!["gone.service".to_owned()], 2));
    assert_eq!(
        (preview.added, preview.removed),
        (vec!["nixos-system-new-a".to_owned()], vec!["nixos-system-old-a".to_owned()])
    );
    assert!(preview.reboot_required);
    assert_eq!(place.runs().0, "nixos-system-old");
    let missing: StorePath = "/nix/store/2c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-x".parse().unwrap();
    assert!(host.preview(&missing).await.unwrap_err().message.contains("is no NixOS system"));
}

#[tokio::test]
async fn files_arrive_whole_and_below_their_directory() {
    let place = Place::new();
    let (host, id) = (Remote::new(&place), DeploymentId::new());
    let (owner, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        content: text.into(),
        delivery: Delivery::Host { owner: owner.to_string(), group: group.to_string(), mode: 0o440 },
    };
    host.deliver(id, &[file("app/token", "s3cret\nwith two lines")]).await.unwrap();
    let path = place.path("run/cairn/files/app/token");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "s3cret\nwith two lines");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o440);
    assert!(!place.path("run/cairn/files/app/token.part").exists());
    for path in ["../x", "a/../../x", "/etc/x", "a//b", "./a", ".."] {
        let fault = host.deliver(id, &[file(path, "x")]).await.unwrap_err();
        assert!(fault.message.contains("is no path below"), "{path}: {fault}");
    }
    assert!(!place.told().iter().any(|line| line.contains("s3cret")));
}

#[tokio::test]
async fn every_unit_of_a_check_counts() {
    let place = Place::new();
    place.write("state-a.service", "active\n");
    place.write("state-b.service", "failed\n");
    let host = Remote::new(&place);
    let check = |units: &[&str]| HealthCheck {
        name: "units".to_owned(),
        probe: Probe::Units(units.iter().map(|&unit| unit.to_owned()).collect()),
        timeout: Duration::from_secs(60),
    };
    assert_eq!(host.check(&check(&["a.service"])).await.unwrap(), Ok(()));
    assert_eq!(host.check(&check(&["a.service", "b.service"])).await.unwrap(), Err("b.service is failed".to_owned()));
}

#[test]
fn shells_read_the_script() {
    for shell in [&["dash", "-n"][..], &["bash", "--posix", "-n"], &["busybox", "sh", "-n"]] {
        let Ok(mut child) = Command::new(shell[0]).args(&shell[1..]).stdin(Stdio::piped()).spawn() else {
            println!("NOT RUN: shells_read_the_script: {} is missing", shell[0]);
            continue;
        };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), SCRIPT.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{shell:?}");
    }
    assert!(Path::new("/bin/sh").exists());
}
