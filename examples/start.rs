//! A port that comes in a message, a listener, and nothing before `start`.
//!
//! `cargo run --example start`
//!
//! A page makes a channel, posts on one end before anybody listens, and gives the other end to the main process.

use std::cell::Cell;
use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

use zeroport::{EventLoop, Handlers, MessageChannel, transfer};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A message that says all with its name.
const NOTHING: &[u8] = &[];

fn main() -> ExitCode {
    let is_page = env::args().nth(1).is_some_and(|argument| argument == "--page");
    match if is_page { page() } else { main_process() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main_process() -> Outcome {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--page");
    let (page, mut process) = zeroport::spawn(command)?;

    let (ours, is_started) = (&Cell::new(None), &Cell::new(false)); // they live longer than the loop
    let mut handlers = Handlers::new();
    handlers.on("port", move |event| {
        let Ok([port]) = event.take_ports() else { return };
        event.later(move |events| {
            let Ok(port) = events.insert(port) else { return };
            ours.set(Some(port));
            println!("main: a port has come; its messages wait");
            events.listeners_of(port).on_close(|_, reason| println!("main: the end: {reason}"));
            events.listeners_of(port).add(|_, message| {
                println!("main: answer {:?}, started: {}", message.pod::<u32>(), is_started.get());
            });
        });
    });
    handlers.on("start", move |event| {
        event.later(|events| {
            let Some(port) = ours.get() else { return };
            println!("main: start");
            is_started.set(true);
            events.listeners_of(port).start();
        });
    });

    let mut events = EventLoop::new()?;
    let page = events.insert(page)?;
    events.listeners_of(page).on_message(move |turn, message| {
        handlers.dispatch_in(turn, &(), message);
    });
    events.run()?; // until both ports are closed
    if !process.wait()?.success() {
        return Err("the page failed".into());
    }
    println!("start: ok");
    Ok(())
}

fn page() -> Outcome {
    let main = zeroport::parent_port()?;
    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    port2.post_pod(&42u32)?; // nobody listens yet
    main.post_message("port", NOTHING, port1)?;
    port2.post_pod(&43u32)?; // still nobody
    main.post_message("start", NOTHING, transfer![])?;
    Ok(())
}
