//! A worker for many clients, which come, crash and go: handlers for names, in event loops.
//!
//! `cargo run --example named`
//!
//! The clients connect to a main process, which knows them by what the kernel says about them, and ask it for a channel
//! to the worker. Whom it does not know gets none. Whoever gets one talks to the worker directly: requests and
//! replies, and a request whose replies are a stream.

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::process::{self, Command, ExitCode};
use std::rc::Rc;

use zeroport::{
    AsPod, EventLoop, Handlers, MessageChannel, NamedEvent, PortId, ReplyError, Responder, Server,
    transfer,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

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

/// Whose port it is, as the main process knows.
struct Client {
    role: &'static str,
    is_guest: bool,
}

fn run() -> Outcome {
    let mut events = EventLoop::new()?;
    let (worker, mut worker_process) = zeroport::spawn(ourselves(&["--worker"])?)?;
    let worker = events.insert(worker)?;
    let handlers = Handlers::new();
    handlers.on("request-worker-channel", move |event: &NamedEvent<'_, '_, Client>| {
        let Ok(Some(responder)) = event.responder() else { return };
        let Client { role, is_guest } = event.identity();
        if *is_guest {
            println!("main: {role} gets a channel to the worker");
            event.later(move |events| {
                introduce(events, worker, responder).unwrap_or_else(|error| eprintln!("{error}"));
            });
        } else {
            let _ = responder.fail("the worker is not for you"); // who asked may have gone
        }
    });

    let handlers = Rc::new(RefCell::new(handlers)); // for the ports of all clients
    let path = env::temp_dir().join(format!("zeroport-named-{}", process::id()));
    let server = Server::bind(&path)?;
    let mut processes = Vec::new();
    for role in ["first", "crashing", "second", "stranger"] {
        let process = ourselves(&[role, &path.to_string_lossy()])?.spawn()?;
        let caller = server.accept()?;
        // A number belongs to one process until that was waited for; so those of our own children will do.
        let is_ours = caller.credentials().pid == Some(process.id());
        let client = Client { role, is_guest: is_ours && role != "stranger" };
        let port = events.insert(caller.admit()?)?;
        let handlers = Rc::clone(&handlers);
        events
            .listeners_of(port)
            .on_message(move |turn, message| {
                handlers.borrow_mut().dispatch_in(turn, &client, message);
            })
            .on_close(move |events, reason| {
                println!("{role}: {reason}");
                if events.len() == 1 {
                    events.close(worker); // no client is left
                }
            });
        processes.push(process);
    }
    events.run()?; // until no port is left
    for mut process in processes {
        process.wait()?;
    }
    if !worker_process.wait()?.success() {
        return Err("the worker failed".into());
    }
    println!("named: ok");
    Ok(())
}

fn ourselves(arguments: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// Makes a channel between the worker and a client: from then on they talk without this process.
fn introduce(events: &EventLoop<'_>, worker: PortId, client: Responder) -> Outcome {
    let worker = events.sender_of(worker).ok_or("the worker has gone")?;
    // Untrusted, as the client's own port is: what crashes may also have been taken over.
    let MessageChannel { port1, port2 } = MessageChannel::untrusted()?;
    worker.post_message("new-client", NOTHING, port1)?;
    client.reply_with(NOTHING, port2)?;
    Ok(())
}

// --- The worker ---

fn work() -> Outcome {
    let handlers = Handlers::new();
    handlers.handle("double", |event| event.pod::<u32>().map(|n| AsPod(2 * n)));
    handlers.on("give-me-a-stream", |event| {
        let (Ok([element, count]), Ok(Some(stream))) = (event.pod::<[u32; 2]>(), event.responder())
        else {
            return;
        };
        let stream = stream.into_port();
        for _ in 0..*count {
            // A client that does not read gets no more than its queue holds.
            let Ok(()) = stream.try_post_pod(element) else { return };
        }
    }); // the stream ends with its port
    let handlers = Rc::new(RefCell::new(handlers)); // for the ports of all clients

    let mut from_main = Handlers::new();
    from_main.on("new-client", move |event| {
        let Ok([port]) = event.take_ports() else { return };
        let handlers = Rc::clone(&handlers);
        event.later(move |events| {
            let Ok(client) = events.insert(port) else { return };
            events
                .listeners_of(client)
                .on_message(move |turn, message| {
                    handlers.borrow_mut().dispatch_in(turn, &(), message);
                })
                .on_close(|_, reason| println!("the worker has lost a client: {reason}"));
        });
    });
    let mut events = EventLoop::new()?;
    let main = events.insert(zeroport::parent_port()?)?;
    events.listeners_of(main).on_message(move |turn, message| {
        from_main.dispatch_in(turn, &(), message);
    });
    events.run()?; // until main and all clients have gone
    Ok(())
}

// --- The clients ---

fn visit(role: &str, path: &str) -> Outcome {
    let main = zeroport::connect(path)?.port;
    let worker = match main.invoke("request-worker-channel", NOTHING, transfer![])?.recv() {
        Ok(reply) => reply.take_port()?.ok_or("no port")?,
        Err(ReplyError::Failed(why)) => {
            println!("{role}: refused: {why}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let doubled = worker.invoke("double", &AsPod(21u32), transfer![])?;
    println!("{role}: 21 doubled is {}", doubled.recv()?.pod::<u32>()?);
    if role == "crashing" {
        process::abort();
    }
    let stream = worker.invoke("give-me-a-stream", &AsPod([42u32, 10]), transfer![])?;
    let mut count = 0;
    while let Ok(element) = stream.recv() {
        count += u32::from(element.pod::<u32>()? == &42);
    }
    println!("{role}: 42 came {count} times");
    let unknown = worker.invoke("fold-napkins", NOTHING, transfer![])?;
    println!("{role}: {}", unknown.recv().map_or_else(|error| error.to_string(), |_| "?".into()));
    Ok(())
}
