//! Runs every example as a user does, and checks what it prints and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// An example that has not ended by then hangs.
const DEADLINE: Duration = Duration::from_secs(120);

struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The lines of the output of an example that must have succeeded.
    fn lines(&self) -> Vec<&str> {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout.lines().collect()
    }
}

/// A folder of this test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(format!("zeroport-examples-{process}-{number}"));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary of an example: `cargo test` builds them next to the tests.
fn binary(example: &str) -> PathBuf {
    let source = format!("{}/examples/{example}.rs", env!("CARGO_MANIFEST_DIR"));
    let test = env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(example);
    let changed = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    assert!(
        changed(&path).is_ok_and(|built| built >= changed(Path::new(&source)).unwrap()),
        "{} is not built, or was built before its source changed: `cargo test` builds the examples, \
         `cargo test --test examples` does not (run `cargo build --examples` before it)",
        path.display()
    );
    path
}

/// Runs a program to its end, with its output in files (a pipe could be held open by a stray child).
fn run(command: &mut Command, folder: &Folder) -> Ran {
    let [stdout, stderr] = ["stdout", "stderr"].map(|name| folder.0.join(name));
    command.stdin(Stdio::null());
    command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} hangs; so far: {}", fs::read_to_string(&stdout).unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    let [stdout, stderr] = [stdout, stderr].map(|path| fs::read_to_string(path).unwrap());
    Ran { status, stdout, stderr }
}

fn run_example(example: &str, arguments: &[&OsStr]) -> Ran {
    let folder = Folder::new();
    run(Command::new(binary(example)).args(arguments), &folder)
}

/// What `wc` says about files, one line each and the total, without its padding.
fn wc(locale: &str, files: &[&OsStr]) -> Vec<String> {
    let mut command = Command::new("wc");
    let output = command.args(["-l", "-w", "-c"]).args(files).env("LC_ALL", locale).output();
    let output = output.expect("wc is part of every system that this runs on");
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(squeeze).collect()
}

fn squeeze(line: &str) -> String {
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// The worker's rows in the form of [`wc`]: everything before the figures.
fn rows(lines: &[&str]) -> Vec<String> {
    let rows = lines.iter().take_while(|line| !line.starts_with("main: "));
    rows.map(|line| squeeze(line)).collect()
}

/// The part of the output that follows the rows is the same whatever was counted.
fn check_figures(lines: &[&str]) {
    let Some([stopped, figures @ .., killed, served, last]) =
        lines.iter().position(|line| line.starts_with("main: ")).map(|main| &lines[main..])
    else {
        panic!("too short: {lines:?}")
    };
    assert!(stopped.starts_with("main: was stopped for "), "{stopped}");
    let [round_trip1, stream1, round_trip2, stream2] = figures else { panic!("{figures:?}") };
    for (client, round_trip, stream) in
        [("client 1", round_trip1, stream1), ("client 2", round_trip2, stream2)]
    {
        let of_client = |line: &str, what| line.starts_with(&format!("{client}: {what}"));
        assert!(of_client(round_trip, "round trip of 8 bytes: median "), "{round_trip}");
        assert!(round_trip.contains(", 99th percentile "), "{round_trip}");
        assert!(of_client(stream, "stream, counted and answered: "), "{stream}");
        assert!(stream.contains(" messages/s, ") && stream.ends_with(" MB/s"), "{stream}");
    }
    let numbers = killed.split(|byte: char| !byte.is_ascii_digit());
    let numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
    let [2, before_the_kill, in_all] = numbers[..] else { panic!("other numbers: {killed}") };
    assert!((1_000..=in_all).contains(&before_the_kill), "{killed}");
    assert!(killed.contains("the worker reports: PeerDied, "), "{killed}");
    assert_eq!(*served, "client 1: served as before");
    assert_eq!(*last, "worker: ok");
}

#[test]
fn hello() {
    let ran = run_example("hello", &[]);
    let mut lines = ran.lines();
    assert_eq!(lines.pop(), Some("hello: ok"));
    // The two ports print at the same time; each keeps its own order.
    let [port2, port1]: [Vec<&str>; 2] = [
        lines.iter().copied().filter(|line| line.starts_with("port2")).collect(),
        lines.iter().copied().filter(|line| line.starts_with("port1")).collect(),
    ];
    assert_eq!(
        port2,
        ["port2 received: hello", "port2 received: is anybody there?", "port2: port1 is closed"]
    );
    assert_eq!(port1, ["port1 received: yes, now"]);
}

#[test]
fn close() {
    let expected = [
        "closed: message \"last words\"",
        "closed: Closed (closed)",
        "dropped: Closed (closed)",
        "killed: PeerDied (the process at the other end died)",
        "never taken: Lost (the other port was lost on its way to a new holder)",
        "close: ok",
    ];
    assert_eq!(run_example("close", &[]).lines(), expected);
}

#[test]
fn relay() {
    let expected = [
        "the relay is gone (exit status: 0)",
        "far: received \"posted before it left\"",
        "far: received \"posted while it travels\"",
        "far: received \"posted after the relay was gone\"",
        "relay: ok",
    ];
    assert_eq!(run_example("relay", &[]).lines(), expected);
}

#[test]
fn server() {
    let expected = [
        "listening, mode 600",
        "first: our user, a guest: admitted",
        "silent: our user, a guest: admitted",
        "second: our user, a guest: admitted",
        "stranger: our user, no guest: refused",
        "first: 3 answers, then Closed",
        "silent: 0 answers, then PeerDied",
        "second: 3 answers, then Closed",
        "server: ok",
    ];
    assert_eq!(run_example("server", &[]).lines(), expected);
}

#[test]
fn listening() {
    let ran = run_example("listening", &[]);
    let mut lines = ran.lines();
    assert_eq!(lines.pop(), Some("listening: ok"));
    let leaves =
        |name| lines.iter().position(|line| line.starts_with(name) && !line.contains(": hello"));
    for name in ["Ann", "Bob", "Cem"] {
        let hello = format!("{name}: hello");
        let says_hello = lines.iter().position(|line| *line == hello);
        assert!(says_hello.is_some() && says_hello < leaves(name), "{lines:?}");
    }
    lines.sort_unstable();
    let expected = [
        "Ann has left",
        "Ann: hello",
        "Bob has left",
        "Bob: hello",
        "Cem is gone: the process at the other end died",
        "Cem: hello",
    ];
    assert_eq!(lines, expected);
}

/// The lines in the order of the alphabet, of an example whose processes print when they like, and its last one.
fn sorted<'r>(ran: &'r Ran, last: &str) -> Vec<&'r str> {
    let mut lines = ran.lines();
    assert_eq!(lines.pop(), Some(last));
    lines.sort_unstable();
    lines
}

#[test]
fn named() {
    let expected = [
        "crashing: 21 doubled is 42",
        "crashing: the process at the other end died",
        "first: 21 doubled is 42",
        "first: 42 came 10 times",
        "first: closed",
        "first: the other side says: nobody handles \"fold-napkins\"",
        "main: crashing gets a channel to the worker",
        "main: first gets a channel to the worker",
        "main: second gets a channel to the worker",
        "second: 21 doubled is 42",
        "second: 42 came 10 times",
        "second: closed",
        "second: the other side says: nobody handles \"fold-napkins\"",
        "stranger: closed",
        "stranger: refused: the worker is not for you",
        "the worker has lost a client: closed",
        "the worker has lost a client: closed",
        "the worker has lost a client: the process at the other end died",
    ];
    assert_eq!(sorted(&run_example("named", &[]), "named: ok"), expected);
}

#[test]
fn start() {
    let expected = [
        "main: a port has come; its messages wait",
        "main: start",
        "main: answer Ok(42), started: true",
        "main: answer Ok(43), started: true",
        "main: the end: closed",
        "start: ok",
    ];
    assert_eq!(run_example("start", &[]).lines(), expected);
}

#[test]
fn utility() {
    let expected = [
        "from the child: good-bye",
        "its exit code: Some(7)",
        "its output: doubling 21",
        "on our port: 42",
        "on the child's port: all done",
        "the child: the process at the other end died",
    ];
    // There is no order between channels.
    assert_eq!(sorted(&run_example("utility", &[]), "utility: ok"), expected);
}

#[test]
fn windows() {
    let expected = [
        "main window received: hello from the secondary window",
        "secondary window received: hello from the main window",
    ];
    assert_eq!(sorted(&run_example("windows", &[]), "windows: ok"), expected);
}

#[test]
fn preload() {
    let ran = run_example("preload", &[]);
    let (stranger, others): (Vec<_>, Vec<_>) =
        ran.lines().into_iter().partition(|line| line.starts_with("stranger"));
    assert_eq!(stranger, ["stranger: refused: this port is not for you"]);
    let expected = [
        "page: has the port, and needs nobody between",
        "page: from main: 21",
        "main: from the page: 42",
        "main: the page: closed",
        "preload: ok",
    ];
    assert_eq!(others, expected);
}

#[cfg(feature = "tokio")]
#[test]
fn async_stream() {
    let expected = [
        "fours: 10 came, then Ok(Closed)",
        "sevens: 100000 came, then Ok(Closed)",
        "a river: 0 came, then Err(\"nobody handles \\\"give-me-a-river\\\"\")",
        "nines: 3 came, then Ok(PeerDied)",
        "async_stream: ok",
    ];
    assert_eq!(run_example("async_stream", &[]).lines(), expected);
}

#[cfg(feature = "smol")]
#[test]
fn async_server() {
    let expected = [
        "501 answers, then PeerDied",
        "1000 answers, then Closed",
        "1000 answers, then Closed",
        "async_server: ok",
    ];
    assert_eq!(run_example("async_server", &[]).lines(), expected);
}

#[test]
fn reply_stream() {
    let expected = [
        vec!["got response data: 42"; 10],
        vec![
            "stream ended (closed)",
            "reply was never sent (closed)",
            "reply was never sent (the other port was lost on its way to a new holder)",
        ],
        vec!["got response data: 7"; 10],
        vec!["stream ended (the process at the other end died)", "reply_stream: ok"],
    ];
    assert_eq!(run_example("reply_stream", &[]).lines(), expected.concat());
}

#[test]
fn a_child_that_no_program_started_says_so() {
    let children = [
        ("close", "--child"),
        ("named", "--worker"),
        ("preload", "--preload"),
        ("relay", "--far"),
        ("relay", "--relay"),
        ("reply_stream", "--server"),
        ("start", "--page"),
        ("utility", "--child"),
        ("worker", "--client"),
        ("worker", "--main"),
        ("worker", "--worker"),
    ];
    for (example, argument) in children {
        let ran = run_example(example, &[argument.as_ref()]);
        assert!(!ran.status.success());
        assert!(ran.stderr.contains("the parent process gave no port"), "{}", ran.stderr);
    }
}

#[test]
fn the_worker_counts_as_wc_does() {
    let folder = Folder::new();
    // `wc` differs from version to version about words without a printable character: none here.
    let spaces = b"one\ttwo\x0bthree\x0cfour\rfive six\n\n  \n".as_slice();
    let binary: Vec<u8> = (0..100_000_u32).map(|n| (n * 37) as u8).collect();
    let long_words = [b"w".repeat(200_000), b" ".repeat(70_000), b"w".repeat(64)].concat();
    let text: String = (0..40_000).map(|n| format!("line {n} of the text\n")).collect();
    let files = [
        folder.file("empty", b""),
        folder.file("one byte", b"x"),
        folder.file("no newline at the end", b"the last line has no end"),
        folder.file("only newlines", &b"\n".repeat(5_000)),
        folder.file("all kinds of white space", spaces),
        folder.file("binary", &binary),
        folder.file("words longer than any message", &long_words),
        folder.file("text", text.as_bytes()),
    ];
    let files: Vec<&OsStr> = files.iter().map(|file| file.as_os_str()).collect();

    let ran = run_example("worker", &files);
    let lines = ran.lines();
    assert_eq!(rows(&lines), wc("C", &files));
    check_figures(&lines);
}

/// More files than may wait for an answer, and than fit into the ring of answers.
#[test]
fn the_worker_takes_any_number_of_files() {
    let folder = Folder::new();
    let files = [folder.file("empty", b""), folder.file("short", b"a few words\n")];
    let files: Vec<&OsStr> =
        files.iter().map(|file| file.as_os_str()).cycle().take(3_000).collect();
    let ran = run_example("worker", &files);
    assert_eq!(rows(&ran.lines()), wc("C", &files));
}

#[test]
fn an_empty_file_is_enough() {
    let folder = Folder::new();
    let ran = run_example("worker", &[folder.file("empty", b"").as_os_str()]);
    let lines = ran.lines();
    assert_eq!(rows(&lines).last().unwrap(), "0 0 0 total");
    check_figures(&lines);
}

#[test]
fn without_files_the_worker_counts_our_own_sources() {
    let ran = run_example("worker", &[]);
    let lines = ran.lines();
    let rows = rows(&lines);
    let sources: Vec<&OsStr> = rows
        .iter()
        .filter_map(|row| row.splitn(4, ' ').nth(3))
        .filter(|name| *name != "total")
        .map(OsStr::new)
        .collect();
    let lib = concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs");
    assert!(sources.contains(&OsStr::new(lib)), "{sources:?}");
    // Our drawings have words of line characters; only in UTF-8 does every `wc` count them.
    assert_eq!(rows, wc("C.UTF-8", &sources));
    check_figures(&lines);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = Folder::new();
    let good = folder.file("good", b"good\n");
    let missing = folder.0.join("missing");
    for bad in [missing.as_path(), folder.0.as_path()] {
        let ran = run_example("worker", &[good.as_os_str(), bad.as_os_str()]);
        assert_eq!(ran.status.code(), Some(1));
        let expected = format!("worker: cannot read {}: ", bad.display());
        assert!(ran.stderr.starts_with(&expected), "{}", ran.stderr);
        assert!(!ran.stdout.contains("ok"), "{}", ran.stdout);
    }
}
