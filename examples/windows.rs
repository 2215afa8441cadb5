//! Two windows that the main process introduces to each other.
//!
//! `cargo run --example windows`
//!
//! The main process makes a channel and posts one end to each window, without waiting until they are ready. From then
//! on they set handlers, and talk to each other directly.

use std::env;
use std::error::Error;
use std::process::{Child, Command, ExitCode};

use zeroport::{EventLoop, Handlers, MessageChannel, MessagePort};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A message that says all with its name.
const NOTHING: &[u8] = &[];

fn main() -> ExitCode {
    let outcome = match env::args().nth(1) {
        Some(name) => window(&name),
        None => main_process(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windows: {error}");
            ExitCode::FAILURE
        }
    }
}

fn main_process() -> Outcome {
    let windows = [open("main window")?, open("secondary window")?];
    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    let [(main, _), (secondary, _)] = &windows;
    main.post_message("port", NOTHING, port1)?;
    secondary.post_message("port", NOTHING, port2)?;
    // This process is not needed any more.
    for (_, mut process) in windows {
        if !process.wait()?.success() {
            return Err("a window failed".into());
        }
    }
    println!("windows: ok");
    Ok(())
}

fn open(name: &str) -> Outcome<(MessagePort, Child)> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(name);
    Ok(zeroport::spawn(command)?)
}

fn window(name: &str) -> Outcome {
    let (name, greeting) = (name.to_string(), format!("hello from the {name}"));
    let mut handlers = Handlers::new();
    handlers.once("port", move |event| {
        let Ok([port]) = event.take_ports() else { return };
        let (name, greeting) = (name.clone(), greeting.clone());
        event.later(move |events| {
            // The other window may have gone: its end is told below.
            let _ = port.post_bytes(greeting.as_bytes());
            let Ok(port) = events.insert(port) else { return };
            events
                .listeners_of(port)
                .on_message(move |turn, message| {
                    println!("{name} received: {}", message.bytes().escape_ascii());
                    turn.stop();
                })
                .on_close(|events, _| events.stop());
        });
    });

    let mut events = EventLoop::new()?;
    let main = events.insert(zeroport::parent_port()?)?;
    events.listeners_of(main).on_message(move |turn, message| {
        handlers.dispatch_in(turn, &(), message);
    });
    events.run()?;
    Ok(())
}
