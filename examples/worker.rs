//! A worker process that counts the lines, words and bytes of files, as `wc` does.
//!
//! `cargo run --release --example worker [FILES…]`; without files it counts zeroport's own sources.
//! A word is what stands between white space (that of the C locale); some versions of `wc` leave out
//! those without a printable character.
//!
//! The program starts itself once more as the worker, streams the files to it in messages of several
//! sizes, and gets the counts back on the same port. Then it measures, and at last it kills a second
//! worker in mid-stream.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use zeroport::{CloseReason, MessagePort, PostError, RecvError, Tagged};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The sizes of messages, in bytes, one after the other; the last of a file is what remains.
const CHUNKS: [usize; 4] = [64, 1 << 10, 4 << 10, 16 << 10];
/// How long files are streamed, over and over, to measure the rate.
const STREAM_FOR: Duration = Duration::from_millis(250);
/// Round trips that are measured, after a tenth as many to warm up.
const ROUND_TRIPS: u64 = 20_000;
/// Files that may wait for their answers. A post waits while the ring is full; if each side only
/// posted, both would wait for ever. So many answers always fit into the worker's ring.
const MAX_UNANSWERED: usize = 64;
/// In the last part: messages between two marks, and those that the worker must have read before it
/// is killed.
const MARK_EVERY: u64 = 16;
const KILL_AFTER: u64 = 1_000;

// On the wire: a file is a sequence of byte messages, and `EndOfFile`, which is answered by `Counts`.
// A `Mark` is answered by itself.

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

impl Tagged for EndOfFile {
    const NAME: &'static str = "worker.EndOfFile";
}

impl Tagged for Counts {
    const NAME: &'static str = "worker.Counts";
}

impl Tagged for Mark {
    const NAME: &'static str = "worker.Mark";
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let outcome = match arguments.first() {
        Some(argument) if argument == "--worker" => work(),
        _ => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The worker ---

fn work() -> Outcome {
    let port = zeroport::parent_port()?;
    let mut counter = Counter::default();
    loop {
        let message = match port.recv() {
            Ok(message) => message,
            Err(RecvError::Closed(CloseReason::Closed)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Ok(mark) = message.pod::<Mark>() {
            port.post_pod(mark)?;
        } else if let Ok(end) = message.pod::<EndOfFile>() {
            port.post_pod(&Counts { file: end.file, ..counter.counts })?;
            counter = Counter::default();
        } else {
            counter.count(message.bytes());
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

// --- The program ---

struct File {
    name: PathBuf,
    content: Vec<u8>,
    /// Counted here and in another way, to check the worker.
    expected: Counts,
}

fn run(arguments: &[OsString]) -> Outcome {
    let files = read_all(arguments)?;

    let (port, mut worker) = start_worker()?;
    let [median, percentile_99] = round_trips(&port)?;
    let (counts, stream) = stream(&port, &files)?;
    port.close();
    check(worker.wait()?.success(), "the worker failed")?;

    let out = &mut io::stdout();
    print_counts(out, &files, &counts)?;
    writeln!(
        out,
        "round trip of 8 bytes: median {median:.1?}, 99th percentile {percentile_99:.1?}"
    )?;
    writeln!(out, "stream, counted and answered: {stream}")?;

    writeln!(out, "second worker: {}", kill_in_mid_stream()?)?;
    writeln!(out, "worker: ok")?;
    Ok(())
}

fn start_worker() -> Outcome<(MessagePort, Child)> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--worker");
    Ok(zeroport::spawn(command)?)
}

/// Posts the files again and again for a while. Gives the worker's counts, and the rate.
fn stream(port: &MessagePort, files: &[File]) -> Outcome<(Vec<Counts>, String)> {
    let (mut messages, mut bytes, mut counts) = (0_u32, 0, Vec::new());
    let mut sizes = CHUNKS.into_iter().cycle();
    let start = Instant::now();
    while messages == 0 || start.elapsed() < STREAM_FOR {
        counts.clear();
        for (index, file) in files.iter().enumerate() {
            let mut rest = file.content.as_slice();
            while !rest.is_empty() {
                let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
                let (chunk, after) = rest.split_at(size);
                port.post_bytes(chunk)?;
                messages += 1;
                rest = after;
            }
            port.post_pod(&EndOfFile { file: index as u64 })?;
            messages += 1;
            bytes += file.content.len();
            if index >= MAX_UNANSWERED {
                counts.push(*port.recv()?.pod::<Counts>()?);
            }
        }
        while counts.len() < files.len() {
            counts.push(*port.recv()?.pod::<Counts>()?);
        }
        let correct = files.iter().zip(&counts).all(|(file, counts)| file.expected == *counts);
        check(correct, "the worker counted wrongly")?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let (message_rate, megabytes) = (f64::from(messages) / seconds, bytes as f64 / 1e6);
    let rate = format!(
        "{messages} messages, {megabytes:.1} MB in {seconds:.3} s: \
         {message_rate:.0} messages/s, {:.0} MB/s",
        megabytes / seconds
    );
    Ok((counts, rate))
}

/// The median and the 99th percentile of small messages there and back.
fn round_trips(port: &MessagePort) -> Outcome<[Duration; 2]> {
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS + ROUND_TRIPS / 10 {
        let start = Instant::now();
        port.post_pod(&Mark { number })?;
        let answer = port.recv()?.pod::<Mark>()?.number;
        times.push(start.elapsed());
        check(answer == number, "the worker answered something else")?;
    }
    let mut times = times.split_off(ROUND_TRIPS as usize / 10);
    times.sort_unstable();
    let percentile = |n: usize| times.get(times.len() * n / 100).copied().unwrap_or_default();
    Ok([percentile(50), percentile(99)])
}

/// Posts without end to a worker that is killed meanwhile, and says what had arrived.
fn kill_in_mid_stream() -> Outcome<String> {
    let (port, mut worker) = start_worker()?;
    let (mut posted, mut arrived, mut killed) = (0, 0, false);
    let end_of_posting = loop {
        match post_one(&port, posted + 1) {
            Ok(()) => posted += 1,
            Err(PostError::Closed(reason)) => break reason,
            Err(error) => return Err(error.into()),
        }
        // Taking the answers between the posts also keeps room for them.
        for answer in port.drain() {
            arrived = answer.pod::<Mark>()?.number;
        }
        if arrived >= KILL_AFTER && !killed {
            worker.kill()?;
            killed = true;
        }
    };
    // What the worker had answered is still received; only then comes the end.
    let end = loop {
        match port.recv() {
            Ok(answer) => arrived = answer.pod::<Mark>()?.number,
            Err(RecvError::Closed(reason)) => break reason,
            Err(error) => return Err(error.into()),
        }
    };
    check([end_of_posting, end] == [CloseReason::PeerDied; 2], "the channel ended otherwise")?;
    check(killed && (KILL_AFTER..=posted).contains(&arrived), "messages were invented")?;
    check(worker.wait()?.signal().is_some(), "the worker was not killed")?;
    Ok(format!(
        "killed in mid-stream; of {posted} messages at least {arrived} had arrived; \
         then {end:?} ({end})"
    ))
}

fn post_one(port: &MessagePort, number: u64) -> Result<(), PostError> {
    port.post_bytes(&[b'x'; 1000])?;
    if number.is_multiple_of(MARK_EVERY) {
        port.post_pod(&Mark { number })?;
    }
    Ok(())
}

fn check(holds: bool, otherwise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

// --- The files ---

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
