//! A server for strangers in tasks of smol: one that accepts, and one for each client.
//!
//! `cargo run --features smol --example async_server`
//!
//! The program starts its own clients. One of them crashes while its task waits for it.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{self, Child, Command, ExitCode};

use smol::{Async, Task};
use zeroport::smol::AsyncPort;
use zeroport::{AcceptError, AdmitError, Caller, CloseReason, MessagePort, RecvError, Server};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const CLIENTS: [&str; 3] = ["first", "crashing", "second"];
const QUESTIONS: u32 = 1000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [role, path] => visit(role, path),
        _ => smol::block_on(run()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("async_server: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The server ---

async fn run() -> Outcome {
    let path = env::temp_dir().join(format!("zeroport-async-{}", process::id()));
    let server = Async::new_nonblocking(Server::bind(&path)?)?; // it is `AsFd`
    let accepting = smol::spawn(async move {
        let mut tasks = Vec::new();
        while tasks.len() < CLIENTS.len() {
            tasks.extend(accept(&server).await?);
        }
        Ok::<Vec<Task<_>>, Box<dyn Error + Send + Sync>>(tasks)
    });
    let mut clients = CLIENTS.iter().map(|role| start(role, &path)).collect::<Outcome<Vec<_>>>()?;

    let mut ends = Vec::new();
    for task in accepting.await? {
        ends.push(task.await?);
    }
    ends.sort_by_key(|(answers, _)| *answers);
    for (answers, end) in ends {
        println!("{answers} answers, then {end:?}");
    }
    for client in &mut clients {
        client.wait()?;
    }
    println!("async_server: ok");
    Ok(())
}

fn start(role: &str, path: &Path) -> Outcome<Child> {
    Ok(Command::new(env::current_exe()?).arg(role).arg(path).spawn()?)
}

/// Waits until somebody calls, and serves who may be served in a task of its own.
async fn accept(server: &Async<Server>) -> Outcome<Option<Task<Outcome<(u32, CloseReason)>>>> {
    server.readable().await?;
    match server.get_ref().try_accept() {
        Ok(caller) => Ok(admit(caller)?.map(|port| smol::spawn(serve(port)))),
        Err(AcceptError::Empty) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Decides by what the kernel says about the caller. Dropping it refuses.
fn admit(caller: Caller) -> Outcome<Option<MessagePort>> {
    if caller.credentials().uid != our_user()? {
        return Ok(None);
    }
    match caller.admit() {
        Err(AdmitError::Gone) => Ok(None),
        admitted => Ok(Some(admitted?)),
    }
}

fn our_user() -> Outcome<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")?.uid())
}

/// Answers until the end, and says how many times, and what the end was.
async fn serve(port: MessagePort) -> Outcome<(u32, CloseReason)> {
    let (mut port, mut answers) = (AsyncPort::new(port), 0);
    loop {
        match port.receiver.recv().await {
            // The message is held while this waits for room, in whatever thread.
            Ok(question) => port.sender.post_bytes(question.bytes()).await?,
            Err(RecvError::Closed(end)) => return Ok((answers, end)),
            Err(error) => return Err(error.into()),
        }
        answers += 1;
    }
}

// --- The clients ---

fn visit(role: &str, path: &str) -> Outcome {
    let port = zeroport::connect(path)?.port;
    for n in 0..QUESTIONS {
        port.post_bytes(&n.to_le_bytes())?;
        if port.recv()?.bytes() != n.to_le_bytes() {
            return Err("another answer".into());
        }
        if role == "crashing" && n == QUESTIONS / 2 {
            process::abort();
        }
    }
    Ok(())
}
