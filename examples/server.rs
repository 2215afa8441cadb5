//! A server for strangers: they connect, are identified, and get a port or a refusal.
//!
//! `cargo run --example server`
//!
//! The program starts its own clients: two that ask questions, one that says nothing, which keeps
//! nobody waiting, and one that nobody has invited.

use std::collections::HashSet;
use std::env;
use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use zeroport::{
    Caller, ChannelOptions, CloseReason, ConnectError, Credentials, MessagePort, RecvError, Server,
};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Nobody here needs so long.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [role, path] => visit(role, path),
        _ => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The server ---

fn run() -> Outcome {
    let path = env::temp_dir().join(format!("zeroport-example-{}", std::process::id()));
    let server = Server::bind(&path)?;
    let file = fs::metadata(&path)?;
    println!("listening, mode {:o}", file.mode() & 0o777);

    // A number belongs to one process until that was waited for; so those of our own children will do.
    // Of others, look at the pidfd.
    let mut guests = HashSet::new();
    let mut serving = Vec::new();
    let mut clients = Vec::new();
    for role in ["first", "silent", "second", "stranger"] {
        let client = start(role, &path)?;
        if role != "stranger" {
            guests.insert(client.id());
        }
        clients.push(client);
        let caller = server.accept_timeout(PATIENCE)?;
        if let Some(port) = admit(role, caller, file.uid(), &guests)? {
            serving.push((role, thread::spawn(move || serve(&port))));
        }
    }
    for (role, mut client) in ["first", "silent", "second", "stranger"].into_iter().zip(clients) {
        if role == "silent" {
            // Not before it has its port: until then that would be lost with it.
            let mut connected = [0; 1];
            client.stdout.take().ok_or("no output")?.read_exact(&mut connected)?;
            client.kill()?;
            client.wait()?;
        } else {
            check(client.wait()?.success(), "a client failed")?;
        }
    }
    for (role, thread) in serving {
        let (answers, end) = thread.join().map_err(|_| "a thread failed")??;
        println!("{role}: {answers} answers, then {end:?}");
    }
    drop(server);
    check(!path.exists(), "the socket file is still there")?;
    println!("server: ok");
    Ok(())
}

fn start(role: &str, path: &Path) -> Outcome<Child> {
    let stdout = if role == "silent" { Stdio::piped() } else { Stdio::inherit() };
    Ok(Command::new(env::current_exe()?).arg(role).arg(path).stdout(stdout).spawn()?)
}

/// Decides by what the kernel says about the caller; nothing that it says itself is needed.
fn admit(
    role: &str,
    caller: Caller,
    our_user: u32,
    guests: &HashSet<u32>,
) -> Outcome<Option<MessagePort>> {
    let Credentials { uid, pid, .. } = *caller.credentials();
    check(uid == our_user, "the socket file lets nobody else in")?;
    if pid.is_some_and(|pid| guests.contains(&pid)) {
        println!("{role}: our user, a guest: admitted");
        Ok(Some(caller.admit()?))
    } else {
        println!("{role}: our user, no guest: refused");
        caller.refuse();
        Ok(None)
    }
}

/// Answers until the end, and says how many times, and what the end was.
fn serve(port: &MessagePort) -> Outcome<(u32, CloseReason)> {
    let mut answers = 0;
    loop {
        match port.recv() {
            Ok(question) => port.post_bytes(&question.bytes().to_ascii_uppercase())?,
            Err(RecvError::Closed(end)) => return Ok((answers, end)),
            Err(error) => return Err(error.into()),
        }
        answers += 1;
    }
}

// --- The clients ---

fn visit(role: &str, path: &str) -> Outcome {
    let connection = match ChannelOptions::new().connect_timeout(path, PATIENCE) {
        Err(ConnectError::Refused { .. }) if role == "stranger" => return Ok(()),
        connection => connection?,
    };
    check(role != "stranger", "everybody is let in")?;
    // Who listens there? Anybody could, at an address that others can take.
    check(connection.server.pid == Some(parent_id()), "not our parent's server")?;
    let port = connection.port;
    if role == "silent" {
        println!("I am in, and say no more");
        // It will be killed.
        return Err(format!("the server hung up: {:?}", port.recv().map(drop)).into());
    }
    for question in ["who is there?", "may I come in?", "thank you"] {
        port.post_bytes(question.as_bytes())?;
        let answer = port.recv()?;
        check(answer.bytes() == question.to_uppercase().as_bytes(), "another answer")?;
    }
    Ok(())
}

fn check(holds: bool, otherwise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
