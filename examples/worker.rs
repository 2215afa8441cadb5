//! A worker process that counts the lines, words and bytes of files, as `wc` does, for two clients.
//!
//! `cargo run --release --example worker -- [--worker-program PROGRAM] [FILES…]`; without files it counts
//! zeroport's own sources. A word is what stands between white space (that of the C locale); some
//! versions of `wc` leave out those without a printable character. The worker may be another program
//! that understands the same messages: examples/c/worker.c is one, in C.
//!
//! ```text
//!                 main                 starts the three, makes the channels, gives all ends away,
//!           ╱      │      ╲            and stops itself (SIGSTOP)
//!   client 1 ═══ worker ═══ client 2   go on meanwhile: no message goes through main
//! ```
//!
//! The clients stream the files to the worker in messages of several sizes, get the counts back on the
//! same port, and measure. Then the second client is killed in mid-stream: the worker tells main, and
//! goes on serving the first.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_parent_process_death_signal,
    waitid,
};
use zeroport::{CloseReason, MessageChannel, MessagePort, PostError, RecvError, Tagged, transfer};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The sizes of messages, in bytes, one after the other; the last of a file is what remains.
const CHUNKS: [usize; 4] = [64, 1 << 10, 4 << 10, 16 << 10];
/// How long files are streamed, over and over, to measure the rate.
const STREAM_FOR: Duration = Duration::from_millis(250);
/// Round trips that are measured, after a tenth as many to warm up.
const ROUND_TRIPS: u64 = 20_000;
/// Files that may wait for their answers. A post waits once as much waits as may; if each side only
/// posted, both would wait for ever. So many answers always fit into the worker's ring.
const MAX_UNANSWERED: usize = 64;
/// In the last part: messages between two marks, and those that the worker must have read before the
/// client is killed.
const MARK_EVERY: u64 = 16;
const KILL_AFTER: u64 = 1_000;

// Between a client and the worker: a file is a sequence of byte messages, and `EndOfFile`, which is
// answered by `Counts`. A `Mark` is answered by itself.

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct EndOfFile {
    file: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
struct Counts {
    file: u64,
    lines: u64,
    words: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Mark {
    number: u64,
}

// Between main and the worker.

/// With two ports: the client's, and one to tell on it, at last, how it `Ended`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct NewClient {
    client: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Ended {
    client: u64,
    /// Its place in `REASONS`.
    reason: u64,
    /// That the client had posted, and the worker has received.
    messages: u64,
}

const REASONS: [CloseReason; 4] =
    [CloseReason::Closed, CloseReason::PeerDied, CloseReason::Lost, CloseReason::Violated];

// Between main and a client: values, for both are in Rust.

#[derive(rkyv::Archive, rkyv::Serialize)]
enum Task {
    CountAgain,
    StreamForEver,
}

/// What a client has measured; the `Counts` of all files come before it.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Figures {
    round_trip: String,
    stream: String,
}

macro_rules! tagged {
    ($($type:ident)*) => {
        $(impl Tagged for $type {
            const NAME: &'static str = concat!("worker.", stringify!($type));
        })*
    };
}

tagged!(EndOfFile Counts Mark NewClient Ended Task Figures);

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let role = arguments.first().and_then(|argument| argument.to_str()).unwrap_or_default();
    let role = ["--main", "--worker", "--client"].into_iter().find(|known| *known == role);
    if role.is_some() {
        arguments.remove(0);
    }
    let outcome = match role {
        None => start_and_continue(&arguments),
        Some("--main") => introduce(&arguments).map(|()| ExitCode::SUCCESS),
        Some("--worker") => work().map(|()| ExitCode::SUCCESS),
        Some(_) => ask(&arguments).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("worker: {error}");
        ExitCode::FAILURE
    })
}

/// Starts this program once more, in a role.
fn start(role: &str, arguments: &[OsString]) -> Outcome<(MessagePort, Child)> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(role).args(arguments);
    Ok(zeroport::spawn(command)?)
}

/// Starts the worker: this program, or the one that the user has named.
fn start_worker(program: Option<&OsString>) -> Outcome<(MessagePort, Child)> {
    match program {
        None => start("--worker", &[]),
        Some(program) => Ok(zeroport::spawn(Command::new(program))?),
    }
}

fn check(holds: bool, otherwise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

// --- What the user starts ---

/// Starts main, and continues it after its pause. (A shell takes a program that stops for one that the
/// user has suspended, and comes back with its prompt. So it is not main itself that the shell sees.)
fn start_and_continue(arguments: &[OsString]) -> Outcome<ExitCode> {
    let (port, mut main) = start("--main", arguments)?;
    // None comes if main fails before its pause.
    if let Ok(message) = port.recv() {
        let pid = Pid::from_child(&main);
        let was_stopped = is_stopped(pid, WaitIdOptions::empty())?;
        let clients = message.take_all_ports();
        for client in clients.iter().flatten() {
            // A client that fails closes its port, and that is an answer, too.
            let _ = client.post_bytes(b"begin").map(|()| client.recv().map(drop));
        }
        let is_stopped = is_stopped(pid, WaitIdOptions::NOHANG)?;
        kill_process(pid, Signal::CONT)?;
        clients?;
        check(was_stopped && is_stopped, "main was not stopped while the clients worked")?;
    }
    Ok(if main.wait()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until a child is stopped or at its end, unless told not to wait. Changes nothing.
fn is_stopped(pid: Pid, options: WaitIdOptions) -> io::Result<bool> {
    let options = options | WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(pid), options)?.is_some_and(|status| status.stopped()))
}

// --- Main ---

/// A client as main knows it.
struct Client {
    number: u64,
    port: MessagePort,
    process: Child,
    /// The worker tells here how the client has ended.
    ended: MessagePort,
}

fn introduce(arguments: &[OsString]) -> Outcome {
    let starter = zeroport::parent_port()?;
    // Should the starter be killed in the pause, the kernel continues this process.
    set_parent_process_death_signal(Some(Signal::CONT))?;
    let (program, names) = match arguments {
        [option, rest @ ..] if option == "--worker-program" => {
            let (program, names) = rest.split_first().ok_or("which worker program?")?;
            (Some(program), names)
        }
        names => (None, names),
    };
    let files = read_all(names)?;

    let (worker, mut worker_process) = start_worker(program)?;
    let (mut client1, begin1) = start_client(1, names, &worker)?;
    let (client2, begin2) = start_client(2, names, &worker)?;
    // The two will be told to begin when this process is stopped, and it goes on when they are done.
    starter.post_bytes_with(b"about to stop", transfer![begin1, begin2])?;
    let start = Instant::now();
    kill_process(getpid(), Signal::STOP)?;
    let stopped_for = start.elapsed();

    let out = &mut io::stdout();
    // What was posted in the pause has waited here.
    let (counts, figures1) = results(&client1.port, &files)?;
    let (_same, figures2) = results(&client2.port, &files)?;
    print_counts(out, &files, &counts)?;
    writeln!(out, "main: was stopped for {stopped_for:.1?}; meanwhile")?;
    for (number, figures) in [(1, figures1), (2, figures2)] {
        writeln!(out, "client {number}: {}", figures.round_trip)?;
        writeln!(out, "client {number}: {}", figures.stream)?;
    }

    writeln!(out, "{}", kill_in_mid_stream(client2)?)?;
    client1.port.post(&Task::CountAgain)?;
    receive_counts(&client1.port, &files)?;
    writeln!(out, "client 1: served as before")?;

    client1.port.close();
    check(client1.process.wait()?.success(), "a client has failed")?;
    let (reason, _) = how_ended(1, &client1.ended)?;
    check(reason == CloseReason::Closed, "the worker saw another end of a client")?;
    worker.close();
    check(worker_process.wait()?.success(), "the worker has failed")?;
    writeln!(out, "worker: ok")?;
    Ok(())
}

/// Starts a client, and gives one end of a fresh channel to it and the other to the worker. The port
/// that is returned beside the client tells it when to begin.
fn start_client(
    number: u64,
    arguments: &[OsString],
    worker: &MessagePort,
) -> Outcome<(Client, MessagePort)> {
    let (port, process) = start("--client", arguments)?;
    let MessageChannel { port1: to_worker, port2: to_client } = MessageChannel::new()?;
    let MessageChannel { port1: begin, port2: told } = MessageChannel::new()?;
    let MessageChannel { port1: ended, port2: tell } = MessageChannel::new()?;
    worker.post_pod_with(&NewClient { client: number }, transfer![to_client, tell])?;
    port.post_bytes_with(b"your worker", transfer![to_worker, told])?;
    Ok((Client { number, port, process, ended }, begin))
}

fn results(port: &MessagePort, files: &[File]) -> Outcome<(Vec<Counts>, Figures)> {
    let counts = receive_counts(port, files)?;
    let message = port.recv()?;
    let figures = message.get::<Figures>()?;
    let (round_trip, stream) = (figures.round_trip.to_string(), figures.stream.to_string());
    Ok((counts, Figures { round_trip, stream }))
}

/// The counts of all files, which must be those that this process has found itself.
fn receive_counts(port: &MessagePort, files: &[File]) -> Outcome<Vec<Counts>> {
    let mut counts = Vec::new();
    for file in files {
        counts.push(*port.recv()?.pod::<Counts>()?);
        check(counts.last() == Some(&file.expected), "the worker counted wrongly")?;
    }
    Ok(counts)
}

/// Has a client post without end, kills it meanwhile, and says how the worker and this process learn
/// of it.
fn kill_in_mid_stream(mut client: Client) -> Outcome<String> {
    client.port.post(&Task::StreamForEver)?;
    let arrived = client.port.recv()?.pod::<Mark>()?.number;
    client.process.kill()?;
    check(client.process.wait()?.signal().is_some(), "the client was not killed")?;

    let end = client.port.recv().map(drop);
    check(end == Err(RecvError::Closed(CloseReason::PeerDied)), "its port ended otherwise")?;
    let (reason, messages) = how_ended(client.number, &client.ended)?;
    check(reason == CloseReason::PeerDied, "the worker saw another end of the client")?;
    check(messages >= arrived, "messages that had arrived are lost")?;
    Ok(format!(
        "client {}: killed in mid-stream, {arrived} messages after it had begun; the worker reports: \
         {reason:?}, after {messages} messages in all",
        client.number
    ))
}

/// How the worker has seen a client end, and after how many messages.
fn how_ended(client: u64, told: &MessagePort) -> Outcome<(CloseReason, u64)> {
    let message = told.recv()?;
    let ended = message.pod::<Ended>()?;
    check(ended.client == client, "the worker tells of another client")?;
    let reason = REASONS.get(ended.reason as usize).ok_or("the worker tells of no known end")?;
    Ok((*reason, ended.messages))
}

// --- The worker ---

fn work() -> Outcome {
    let main = zeroport::parent_port()?;
    let mut clients = Vec::new();
    loop {
        let message = match main.recv() {
            Ok(message) => message,
            Err(RecvError::Closed(CloseReason::Closed)) => break,
            Err(error) => return Err(error.into()),
        };
        let client = message.pod::<NewClient>()?.client;
        let [port, tell] = message.take_ports()?;
        clients.push(thread::spawn(move || {
            let (reason, messages) = serve(&port).map_err(|error| error.to_string())?;
            let reason = REASONS.iter().position(|known| *known == reason);
            let reason = reason.ok_or("an unknown end")? as u64;
            tell.post_pod(&Ended { client, reason, messages }).map_err(|error| error.to_string())
        }));
    }
    for client in clients {
        client.join().map_err(|_| "a thread of the worker panicked")??;
    }
    Ok(())
}

/// Serves a client until its end: why it has ended, and how many messages it had posted.
fn serve(port: &MessagePort) -> Outcome<(CloseReason, u64)> {
    let (mut counter, mut messages) = (Counter::default(), 0);
    loop {
        let message = match port.recv() {
            Ok(message) => message,
            Err(RecvError::Closed(reason)) => return Ok((reason, messages)),
            Err(error) => return Err(error.into()),
        };
        messages += 1;
        let answered = if let Ok(mark) = message.pod::<Mark>() {
            port.post_pod(mark)
        } else if let Ok(end) = message.pod::<EndOfFile>() {
            let counts = Counts { file: end.file, ..counter.counts };
            counter = Counter::default();
            port.post_pod(&counts)
        } else {
            counter.count(message.bytes());
            Ok(())
        };
        match answered {
            // Nobody is left to read the answer; the end comes after what is still to be received.
            Ok(()) | Err(PostError::Closed(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Default)]
struct Counter {
    counts: Counts,
    /// A word may begin in one message and end in the next.
    in_word: bool,
}

impl Counter {
    fn count(&mut self, chunk: &[u8]) {
        self.counts.bytes += chunk.len() as u64;
        for &byte in chunk {
            let in_word = !is_space(byte);
            self.counts.lines += u64::from(byte == b'\n');
            self.counts.words += u64::from(in_word && !self.in_word);
            self.in_word = in_word;
        }
    }
}

/// `isspace` in the C locale.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

// --- A client ---

fn ask(arguments: &[OsString]) -> Outcome {
    let main = zeroport::parent_port()?;
    let [worker, told] = main.recv()?.take_ports()?;
    let files = read_all(arguments)?;
    told.recv()?; // to begin
    let round_trip = round_trips(&worker)?;
    let (counts, stream) = stream(&worker, &files)?;
    // Before the report, which may be longer than the ring: then main must run to take it.
    told.post_bytes(b"done")?;
    main.post_all_pod(&counts)?;
    main.post(&Figures { round_trip, stream })?;

    loop {
        let task = match main.recv() {
            Ok(task) => task,
            Err(RecvError::Closed(CloseReason::Closed)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match task.get::<Task>()? {
            ArchivedTask::CountAgain => {
                main.post_all_pod(&stream_once(&worker, &files)?.0)?;
            }
            ArchivedTask::StreamForEver => stream_for_ever(&worker, &main)?,
        }
    }
}

/// The median and the 99th percentile of small messages there and back.
fn round_trips(worker: &MessagePort) -> Outcome<String> {
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS + ROUND_TRIPS / 10 {
        let start = Instant::now();
        worker.post_pod(&Mark { number })?;
        let answer = worker.recv()?.pod::<Mark>()?.number;
        times.push(start.elapsed());
        check(answer == number, "the worker answered something else")?;
    }
    let mut times = times.split_off(ROUND_TRIPS as usize / 10);
    times.sort_unstable();
    let percentile = |n: usize| times.get(times.len() * n / 100).copied().unwrap_or_default();
    let (median, high) = (percentile(50), percentile(99));
    Ok(format!("round trip of 8 bytes: median {median:.1?}, 99th percentile {high:.1?}"))
}

/// Posts the files again and again for a while. Gives the worker's counts, and the rate.
fn stream(worker: &MessagePort, files: &[File]) -> Outcome<(Vec<Counts>, String)> {
    let (mut messages, mut passes) = (0, 0);
    let start = Instant::now();
    loop {
        let (counts, posted) = stream_once(worker, files)?;
        messages += posted;
        passes += 1;
        let correct = files.iter().zip(&counts).all(|(file, counts)| file.expected == *counts);
        check(correct, "the worker counted wrongly")?;
        if start.elapsed() < STREAM_FOR {
            continue;
        }
        let seconds = start.elapsed().as_secs_f64();
        let megabytes =
            files.iter().map(|file| file.content.len()).sum::<usize>() as f64 * passes as f64 / 1e6;
        let rate = format!(
            "stream, counted and answered: {messages} messages, {megabytes:.1} MB in \
             {seconds:.3} s: {:.0} messages/s, {:.0} MB/s",
            messages as f64 / seconds,
            megabytes / seconds
        );
        return Ok((counts, rate));
    }
}

/// Posts the files. Gives the worker's counts, and how many messages that were.
fn stream_once(worker: &MessagePort, files: &[File]) -> Outcome<(Vec<Counts>, u64)> {
    let (mut counts, mut messages) = (Vec::new(), 0);
    let mut sizes = CHUNKS.into_iter().cycle();
    for (index, file) in files.iter().enumerate() {
        let mut rest = file.content.as_slice();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
            let (chunk, after) = rest.split_at(size);
            worker.post_bytes(chunk)?;
            messages += 1;
            rest = after;
        }
        worker.post_pod(&EndOfFile { file: index as u64 })?;
        messages += 1;
        if index >= MAX_UNANSWERED {
            counts.push(*worker.recv()?.pod::<Counts>()?);
        }
    }
    while counts.len() < files.len() {
        counts.push(*worker.recv()?.pod::<Counts>()?);
    }
    Ok((counts, messages))
}

/// Posts without end, until this process is killed. Tells main when the worker has read so much.
fn stream_for_ever(worker: &MessagePort, main: &MessagePort) -> Outcome {
    let (mut arrived, mut told) = (0, false);
    for number in 1.. {
        worker.post_bytes(&[b'x'; 1000])?;
        if number % MARK_EVERY == 0 {
            worker.post_pod(&Mark { number })?;
        }
        // Taking the answers between the posts also keeps room for them.
        for answer in worker.drain() {
            arrived = answer.pod::<Mark>()?.number;
        }
        if arrived >= KILL_AFTER && !told {
            main.post_pod(&Mark { number: arrived })?;
            told = true;
        }
    }
    Ok(())
}

// --- The files ---

struct File {
    name: PathBuf,
    content: Vec<u8>,
    /// Counted here and in another way, to check the worker.
    expected: Counts,
}

fn read_all(arguments: &[OsString]) -> Outcome<Vec<File>> {
    let names = match arguments {
        [] => own_sources()?,
        names => names.iter().map(PathBuf::from).collect(),
    };
    names.into_iter().enumerate().map(|(index, name)| read(index, name)).collect()
}

fn read(index: usize, name: PathBuf) -> Outcome<File> {
    let content =
        fs::read(&name).map_err(|error| format!("cannot read {}: {error}", name.display()))?;
    let expected = Counts {
        file: index as u64,
        lines: content.iter().filter(|byte| **byte == b'\n').count() as u64,
        words: content.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).count() as u64,
        bytes: content.len() as u64,
    };
    Ok(File { name, content, expected })
}

/// zeroport's sources; this program's own file if they are not where it was built.
fn own_sources() -> io::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => sources.push(path),
                _ => {}
            }
        }
    }
    if sources.is_empty() {
        sources.push(env::current_exe()?);
    }
    sources.sort();
    Ok(sources)
}

fn print_counts(out: &mut impl Write, files: &[File], counts: &[Counts]) -> io::Result<()> {
    let mut total = Counts::default();
    for (file, counts) in files.iter().zip(counts) {
        total.lines += counts.lines;
        total.words += counts.words;
        total.bytes += counts.bytes;
        print_row(out, counts, &file.name.display().to_string())?;
    }
    print_row(out, &total, "total")
}

fn print_row(out: &mut impl Write, counts: &Counts, name: &str) -> io::Result<()> {
    writeln!(out, "{:>9} {:>9} {:>11} {name}", counts.lines, counts.words, counts.bytes)
}
