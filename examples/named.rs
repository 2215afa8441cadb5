//! Messages with names: a worker that serves several clients, which come, crash and go.
//!
//! `cargo run --example named`
//!
//! The clients connect to a main process, which knows them by what the kernel says about them, and ask it for a channel
//! to the worker. Whom it does not know gets none. Whoever gets one talks to the worker directly: requests and
//! replies, and a request whose replies are a stream.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{self, Child, Command, ExitCode};
use std::time::Duration;

use zeroport::{
    AsPod, CloseReason, Credentials, Event, Handlers, MessageChannel, NamedEvent, PortSet,
    ReplyError, Server, TransferError, transfer,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Nobody here needs so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A message that says all with its name.
const NOTHING: &[u8] = &[];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [role] if role == "--worker" => work(),
        [role, path] => visit(role, path),
        _ => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("named: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- The main process ---

/// What it knows of a client.
struct Client {
    role: &'static str,
    /// As the kernel has vouched for when it connected.
    credentials: Credentials,
    is_ours: bool,
}

fn run() -> Outcome {
    let path = env::temp_dir().join(format!("zeroport-named-{}", process::id()));
    let server = Server::bind(&path)?;
    let mut command = Command::new(env::current_exe()?);
    command.arg("--worker");
    let (worker, mut worker_process) = zeroport::spawn(command)?;

    let mut set = PortSet::new()?;
    let (mut clients, mut children) = (HashMap::new(), Vec::new());
    for (key, role) in ["first", "crashing", "second", "stranger"].into_iter().enumerate() {
        let child = start(role, &path)?;
        let caller = server.accept_timeout(PATIENCE)?;
        let credentials = caller.credentials().try_clone()?;
        // Which processes are ours is the main process's to know: here, those it has started on purpose.
        let is_ours = role != "stranger" && credentials.pid == Some(child.id());
        set.insert(key, caller.admit()?)?;
        clients.insert(key, Client { role, credentials, is_ours });
        children.push(child);
    }

    let told = RefCell::new(BTreeMap::new());
    let tell =
        |role, what: String| told.borrow_mut().entry(role).or_insert_with(Vec::new).push(what);
    let mut handlers = Handlers::new();
    handlers.on("request-worker-channel", |event: &NamedEvent<'_, '_, Client>| {
        let answered = introduce(event, &worker);
        answered.unwrap_or_else(|error| eprintln!("named: {error}"));
    });
    handlers.on("report", |event| tell(event.identity().role, text(event.bytes())));
    while !set.is_empty() {
        for (key, event) in set.wait()? {
            let client = clients.get(&key).ok_or("nobody has this key")?;
            match event {
                Event::Message(sender, message) => handlers.dispatch(sender, client, &message),
                Event::Closed(reason) => tell(client.role, format!("{reason}")),
                other => return Err(format!("{}: {other:?}", client.role).into()),
            }
        }
    }
    drop(handlers);
    for mut child in children {
        child.wait()?;
    }
    for (role, lines) in told.into_inner() {
        lines.iter().for_each(|line| println!("{role}: {line}"));
    }

    // The worker outlives them, and replies when it has seen the end of all.
    let summary = worker.invoke("when-all-have-gone", NOTHING, transfer![])?;
    println!("the worker: {}", text(summary.recv_timeout(PATIENCE)?.bytes()));
    worker.close();
    check(worker_process.wait()?.success(), "the worker failed")?;
    println!("named: ok");
    Ok(())
}

fn start(role: &str, path: &Path) -> Outcome<Child> {
    Ok(Command::new(env::current_exe()?).arg(role).arg(path).spawn()?)
}

/// Makes a channel between the worker and a client, if the client may have one.
fn introduce(event: &NamedEvent<'_, '_, Client>, worker: &zeroport::MessagePort) -> Outcome {
    let Some(responder) = event.responder()? else { return Ok(()) };
    let Client { credentials, is_ours, .. } = event.identity();
    if !is_ours || credentials.uid != our_user()? {
        responder.fail("the worker is not for you")?;
        return Ok(());
    }
    // Untrusted, as the client's own port is: what crashes may also have been taken over.
    let MessageChannel { port1, port2 } = MessageChannel::untrusted()?;
    worker.post_message("new-client", NOTHING, port1)?;
    responder.reply_with(NOTHING, port2)?;
    // Now the two can talk without this process.
    Ok(())
}

fn our_user() -> Outcome<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")?.uid())
}

// --- The worker ---

/// The key of the port to the main process, among those of the clients.
const MAIN: u32 = 0;

fn work() -> Outcome {
    let mut set = PortSet::new()?;
    set.insert(MAIN, zeroport::parent_port()?)?;
    let (new_ports, clients) = (set.handle(), Cell::new(0));
    let waiting = RefCell::new(Vec::new());
    let mut ends = Vec::new();

    let mut handlers = Handlers::new();
    handlers.on("new-client", |event: &NamedEvent<'_, '_, u32>| {
        // Nobody but the main process brings clients.
        if *event.identity() != MAIN {
            return;
        }
        while let Ok(Some(port)) = event.take_port() {
            clients.set(clients.get() + 1);
            let inserted = new_ports.insert(MAIN + clients.get(), port);
            inserted.unwrap_or_else(|_| eprintln!("named: the set is gone"));
        }
    });
    handlers.handle("double", |event| event.pod::<u32>().map(|n| AsPod(2 * n)));
    handlers.on("give-me-a-stream", |event| {
        let (Ok([element, count]), Ok(Some(stream))) = (event.pod::<[u32; 2]>(), event.responder())
        else {
            return;
        };
        // The stream ends with the port, at the end of this.
        let stream = stream.into_port();
        for _ in 0..*count {
            // A client that does not read gets no more than its queue holds.
            let Ok(()) = stream.try_post_pod(element) else { return };
        }
    });
    handlers.on("when-all-have-gone", |event| {
        waiting.borrow_mut().extend(event.responder().ok().flatten());
    });

    while set.contains_key(&MAIN) {
        for (key, event) in set.wait()? {
            match event {
                Event::Message(sender, message) => handlers.dispatch(sender, &key, &message),
                Event::Closed(reason) if key != MAIN => ends.push(reason),
                Event::Closed(_) => {}
                other => return Err(format!("{key}: {other:?}").into()),
            }
        }
        if ends.len() == clients.get() as usize {
            let crashed = ends.iter().filter(|end| **end == CloseReason::PeerDied).count();
            let summary = format!("{} clients have come and gone, {crashed} crashed", ends.len());
            for responder in waiting.take() {
                responder.reply(summary.as_bytes())?;
            }
        }
    }
    Ok(())
}

// --- The clients ---

fn visit(role: &str, path: &str) -> Outcome {
    let main = zeroport::ChannelOptions::new().connect_timeout(path, PATIENCE)?.port;
    let report = |what: &str| -> Result<(), TransferError> {
        main.post_message("report", what.as_bytes(), transfer![])
    };
    let reply = main.invoke("request-worker-channel", NOTHING, transfer![])?;
    let worker = match reply.recv_timeout(PATIENCE) {
        Ok(reply) => reply.take_port()?.ok_or("no port")?,
        Err(ReplyError::Failed(why)) => return Ok(report(&format!("refused: {why}"))?),
        Err(error) => return Err(error.into()),
    };

    let doubled = worker.invoke("double", &AsPod(21u32), transfer![])?;
    let doubled = *doubled.recv_timeout(PATIENCE)?.pod::<u32>()?;
    report(&format!("21 doubled is {doubled}"))?;
    if role == "crashing" {
        process::abort();
    }

    let stream = worker.invoke("give-me-a-stream", &AsPod([42u32, 10]), transfer![])?;
    let mut count = 0;
    let end = loop {
        match stream.recv_timeout(PATIENCE) {
            Ok(element) => count += u32::from(element.pod::<u32>()? == &42),
            Err(end) => break end,
        }
    };
    report(&format!("42 came {count} times, then: {end}"))?;
    let unknown = worker.invoke("fold-napkins", NOTHING, transfer![])?;
    if let Err(error) = unknown.recv_timeout(PATIENCE) {
        report(&error.to_string())?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check(holds: bool, otherwise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}
