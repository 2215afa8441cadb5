//! A port goes through a third process, which looks at who asks before it grants it.
//!
//! `cargo run --example preload`
//!
//! ```text
//!        the port               the port, if it is the page that asks
//!  main ──────────▶ preload ─────────────────────────▶ page
//!    ╰───────────── the two talk directly ─────────────╯
//! ```
//!
//! The page and a stranger connect to the preload process. It knows the page by its pid, which the kernel tells, not
//! who asks; and so does the page know the preload process. What it passes on it neither starts nor reads, and then it
//! exits.

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::os::unix::process::parent_id;
use std::process::{self, Command, ExitCode};
use std::rc::Rc;

use zeroport::{
    Credentials, EventLoop, Handlers, MessageChannel, NamedEvent, NamedMessage, PortId, ReplyError,
    Server, transfer,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A message that says all with its name.
const NOTHING: &[u8] = &[];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [role] if role == "--preload" => preload(),
        [role, path] => visit(role, path),
        _ => main_process(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("preload: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main_process() -> Outcome {
    let (preload, mut process) = zeroport::spawn(ourselves(&["--preload"])?)?;
    let MessageChannel { port1, port2 } = MessageChannel::untrusted()?; // a page is a stranger
    port2.post_pod(&21u32)?; // waits until the page listens
    preload.post_message("main-world-port", NOTHING, port1)?;

    let mut events = EventLoop::new()?;
    let port2 = events.insert(port2)?;
    events
        .listeners_of(port2)
        .on_pod::<u32>(|_, number, _| println!("main: from the page: {number}"))
        .on_close(|_, reason| println!("main: the page: {reason}"));
    events.run()?; // until the page closes
    if !process.wait()?.success() {
        return Err("the preload process failed".into());
    }
    println!("preload: ok");
    Ok(())
}

fn ourselves(arguments: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

// --- The process between ---

fn preload() -> Outcome {
    let main = zeroport::parent_port()?;
    let [port] = NamedMessage::open(main.recv()?)?.take_ports()?;

    let path = env::temp_dir().join(format!("zeroport-preload-{}", process::id()));
    let server = Server::bind(&path)?;
    let path = path.to_string_lossy();
    let mut stranger = ourselves(&["stranger", &path])?.spawn()?;
    let page = ourselves(&["page", &path])?.spawn()?.id(); // is its own: nobody has waited for it

    let (handlers, mut port) = (Handlers::new(), Some(port));
    handlers.on("request-port", move |event: &NamedEvent<'_, '_, (PortId, Credentials)>| {
        let Ok(Some(responder)) = event.responder() else { return };
        let (caller, credentials) = event.identity();
        let granted = if credentials.pid == Some(page) { port.take() } else { None };
        // Who asked may have gone; then the port is closed, and main told.
        let _ = match granted {
            Some(port) => responder.reply_with(NOTHING, port).map_err(|refused| refused.source),
            None => responder.fail("this port is not for you"),
        };
        let caller = *caller;
        event.later(move |events| events.close(caller));
    });

    let handlers = Rc::new(RefCell::new(handlers));
    let mut events = EventLoop::new()?;
    for _ in 0..2 {
        let caller = server.accept()?;
        let credentials = caller.credentials().try_clone()?;
        let port = events.insert(caller.admit()?)?;
        let (handlers, identity) = (Rc::clone(&handlers), (port, credentials));
        events.listeners_of(port).on_message(move |turn, message| {
            handlers.borrow_mut().dispatch_in(turn, &identity, message);
        });
    }
    events.run()?; // until both have their answer
    stranger.wait()?;
    Ok(())
}

// --- Who asks ---

fn visit(role: &str, path: &str) -> Outcome {
    let preload = zeroport::connect(path)?;
    if preload.server.pid != Some(parent_id()) {
        return Err("this is not the preload process".into());
    }
    let port = match preload.port.invoke("request-port", NOTHING, transfer![])?.recv() {
        Ok(reply) => reply.take_port()?.ok_or("no port")?,
        Err(ReplyError::Failed(why)) => {
            println!("{role}: refused: {why}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };

    let mut events = EventLoop::new()?;
    let (preload, port) = (events.insert(preload.port)?, events.insert(port)?);
    let role = role.to_string();
    events.listeners_of(preload).on_close(move |events, _| {
        println!("{role}: has the port, and needs nobody between");
        events.listeners_of(port).on_pod::<u32>(move |turn, number, _| {
            println!("{role}: from main: {number}");
            let _ = turn.sender().post_pod(&(2 * number)); // main may have gone
            turn.close(turn.port());
        });
    });
    events.run()?; // until no port is left
    Ok(())
}
