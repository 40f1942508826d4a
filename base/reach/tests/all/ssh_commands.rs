//! Commands on a connection: how they end, what goes in and out, and that none disturbs another.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use reach::ssh::{Command, Error, Exit, Running, Target};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::ssh_fixture::{Host, PATIENCE, shell, sshd_is_here, within};

const MIB: usize = 1024 * 1024;

/// Not root: sshd passes no signals on to commands of root's.
fn tester(host: &Host) -> Target {
    Target { user: "tester".into(), ..host.target() }
}

/// Reads the line that says that the command has started.
async fn started(running: &mut Running) -> String {
    let mut line = String::new();
    within(BufReader::new(running.stdout.take().unwrap()).read_line(&mut line)).await.unwrap();
    line.trim().to_owned()
}

#[tokio::test]
async fn every_end_of_a_command_is_told() {
    if !sshd_is_here("every_end_of_a_command_is_told") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    for (script, exit) in [
        ("exit 0", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        ("exit 255", Exit::Code(255)),
        ("kill -TERM $$", Exit::Signal("TERM".into())),
        ("kill -KILL $$", Exit::Signal("KILL".into())),
        ("kill -SEGV $$", Exit::Signal("SEGV".into())),
    ] {
        let output = connection.run(&shell(script), b"", PATIENCE).await.unwrap();
        assert_eq!(output.exit, exit, "{script}");
    }
    let output = connection.run(&Command::new("no-such-program"), b"", PATIENCE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(127));
    assert!(output.stderr_text().contains("no-such-program"), "{output:?}");
}

#[tokio::test]
async fn words_variables_and_both_outputs_arrive() {
    if !sshd_is_here("words_variables_and_both_outputs_arrive") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let command = Command::new("sh")
        .args(["-c", r#"cat; printf '%s|%s|%s' "$1" "$2" "$FLAVOUR"; printf oops >&2"#])
        .args(["name", "it's $HOME", "a\nb\\"])
        .as_root()
        .environment("FLAVOUR", "sour & sweet");
    let output = connection.run(&command, b"input;", PATIENCE).await.unwrap();
    assert_eq!(output.stdout, b"input;it's $HOME|a\nb\\|sour & sweet");
    assert_eq!(output.stderr, b"oops");
    assert!(output.exit.is_success() && !output.stdout_cut && !output.stderr_cut);
}

#[tokio::test]
async fn output_is_kept_up_to_a_limit_and_the_rest_is_said_to_be_cut() {
    if !sshd_is_here("output_is_kept_up_to_a_limit_and_the_rest_is_said_to_be_cut") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let script = "printf first; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; printf last >&2";
    let output = connection.run(&shell(script).output_limit(1000), b"", PATIENCE).await.unwrap();
    assert_eq!((output.stdout.len(), output.stdout_cut), (1000, true));
    assert_eq!((output.stderr.len(), output.stderr_cut), (1000, true));
    assert!(output.stdout.starts_with(b"first") && output.stderr.ends_with(b"last"));
    let output = connection.run(&shell("printf 1234 | tee /dev/stderr").output_limit(4), b"", PATIENCE).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stdout_cut), (b"1234".as_slice(), false));
    assert_eq!((output.stderr.as_slice(), output.stderr_cut), (b"1234".as_slice(), false));
    let output = connection.run(&shell(script), b"", PATIENCE).await.unwrap();
    assert_eq!((output.stdout.len(), output.stderr.len()), (MIB, MIB));
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_matter() {
    if !sshd_is_here("input_that_nobody_reads_does_not_matter") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let output = connection.run(&Command::new("true"), &vec![0; 10 * MIB], PATIENCE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0));
}

/// Prints how long things took; nothing is asserted about it.
#[tokio::test]
async fn sixty_four_mebibytes_go_there_and_come_back() {
    if !sshd_is_here("sixty_four_mebibytes_go_there_and_come_back") {
        return;
    }
    let host = Host::start("").await;
    let begin = Instant::now();
    let connection = host.connect().await;
    let connected = begin.elapsed();
    let begin = Instant::now();
    connection.run(&Command::new("true"), b"", PATIENCE).await.unwrap();
    let command = begin.elapsed();

    let begin = Instant::now();
    let mut running = connection.spawn(&Command::new("cat")).await.unwrap();
    let (mut stdin, mut stdout) = (running.stdin.take().unwrap(), running.stdout.take().unwrap());
    let sending = tokio::spawn(async move {
        let mut digest = Sha256::new();
        for number in 0..1024_u32 {
            let piece: Vec<u8> = (0..16 * 1024_u32)
                .flat_map(|word| word.wrapping_mul(2_654_435_761).wrapping_add(number).to_le_bytes())
                .collect();
            digest.update(&piece);
            stdin.write_all(&piece).await.unwrap();
        }
        digest.finalize()
    });
    let mut digest = Sha256::new();
    let mut piece = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        let count = within(stdout.read(&mut piece)).await.unwrap();
        if count == 0 {
            break;
        }
        digest.update(&piece[..count]);
        total += count;
    }
    assert_eq!(running.wait().await.unwrap(), Exit::Code(0));
    let transferred = begin.elapsed();
    assert_eq!(total, 64 * MIB);
    assert_eq!(digest.finalize(), sending.await.unwrap());
    println!("connect {connected:?}, command {command:?}, 64 MiB both ways {transferred:?}");
}

#[tokio::test]
async fn writing_waits_for_a_command_that_does_not_read() {
    if !sshd_is_here("writing_waits_for_a_command_that_does_not_read") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    let mut running = connection.spawn(&shell("echo ready; read line; exec cat >/dev/null")).await.unwrap();
    assert_eq!(started(&mut running).await, "ready");
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"\n").await.unwrap();
    // Without a reader, windows and pipes fill up and no more is taken.
    let mut stuck = connection.spawn(&shell("echo ready; exec sleep 1000")).await.unwrap();
    assert_eq!(started(&mut stuck).await, "ready");
    let mut unread = stuck.stdin.take().unwrap();
    let mut taken = 0;
    let piece = vec![0; MIB];
    while let Ok(result) = tokio::time::timeout(Duration::from_secs(2), unread.write_all(&piece)).await {
        result.unwrap();
        taken += 1;
        assert!(taken < 64, "nothing held the writer back");
    }
    // That holds up nobody else.
    stdin.write_all(&vec![0; 8 * MIB]).await.unwrap();
    drop(stdin);
    assert_eq!(within(running.wait()).await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn the_limit_of_a_command_ends_it_and_nothing_else() {
    if !sshd_is_here("the_limit_of_a_command_ends_it_and_nothing_else") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.try_connect(&tester(&host)).await.unwrap();
    let place = host.directory.path().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
    let file = place.join("pid");
    let script = shell("echo $$ > \"$1\"; exec sleep 1000").arg("name").arg(&file);
    let error = connection.run(&script, b"", Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(&error, Error::CommandTimeout { program, .. } if program == "exec"), "{error}");
    // Whether it got as far as that in a second is not the point: it must be gone.
    let gone = shell("while [ -s \"$1\" ] && kill -0 $(cat \"$1\") 2>/dev/null; do sleep 0.05; done");
    let output = connection.run(&gone.arg("name").arg(&file), b"", PATIENCE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    assert_eq!(host.count(), 1);
}

#[tokio::test]
async fn dropping_a_command_ends_only_its_channel() {
    if !sshd_is_here("dropping_a_command_ends_only_its_channel") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.try_connect(&tester(&host)).await.unwrap();
    let mut other = connection.spawn(&Command::new("cat")).await.unwrap();
    let mut dropped = connection.spawn(&shell("echo $$; exec sleep 1000")).await.unwrap();
    let pid = started(&mut dropped).await;
    drop(dropped);
    let gone = shell("while kill -0 \"$1\" 2>/dev/null; do sleep 0.05; done").arg("name").arg(pid);
    let output = connection.run(&gone, b"", PATIENCE).await.unwrap();
    assert_eq!(output.exit, Exit::Code(0));
    other.stdin.take().unwrap().write_all(b"still here").await.unwrap();
    let mut text = String::new();
    within(other.stdout.take().unwrap().read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "still here");
    assert_eq!(within(other.wait()).await.unwrap(), Exit::Code(0));
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn fifty_commands_at_once_share_a_connection() {
    if !sshd_is_here("fifty_commands_at_once_share_a_connection") {
        return;
    }
    // Fewer at once than we would start: those that are refused take their turn.
    let host = Host::start("MaxSessions 3").await;
    let connection = host.connect().await;
    let mut commands = tokio::task::JoinSet::new();
    for number in 0..50_u32 {
        let connection = connection.clone();
        commands.spawn(async move {
            let input = number.to_string();
            let command = shell("cat; exit \"$1\"").arg("name").arg(&input);
            let output = connection.run(&command, input.as_bytes(), PATIENCE).await.unwrap();
            assert_eq!(output.exit, Exit::Code(number));
            assert_eq!(output.stdout_text(), input);
        });
    }
    while let Some(ended) = commands.join_next().await {
        ended.unwrap();
    }
    assert_eq!(host.count(), 1);
}

#[tokio::test]
async fn a_connection_outlives_its_handle_while_a_command_runs() {
    if !sshd_is_here("a_connection_outlives_its_handle_while_a_command_runs") {
        return;
    }
    let host = Host::start("").await;
    let mut running = host.connect().await.spawn(&Command::new("cat")).await.unwrap();
    running.stdin.take().unwrap().write_all(b"x").await.unwrap();
    assert_eq!(within(running.wait()).await.unwrap(), Exit::Code(0));
}

#[tokio::test]
async fn a_command_that_goes_on_as_root_gives_its_place_back() {
    if !sshd_is_here("a_command_that_goes_on_as_root_gives_its_place_back") {
        return;
    }
    let host = Host::start("").await;
    let connection = host.connect().await;
    for _ in 0..12 {
        let mut running = connection.spawn(&shell("echo ready; exec cat")).await.unwrap();
        assert_eq!(started(&mut running).await, "ready");
        drop(running);
    }
    let output = connection.run(&Command::new("echo").arg("ok"), b"", PATIENCE).await.unwrap();
    assert_eq!(output.stdout_text(), "ok");
}
