//! Handlers for the ports of several processes, in one thread: a room whose members hear each other.
//!
//! `cargo run --example listening`
//!
//! What a member says goes to all the others. One that leaves, in whatever way, leaves the room; when the last one has
//! left there is no port to listen to, and the loop ends.

use std::cell::RefCell;
use std::env;
use std::error::Error;
use std::process::{self, Command, ExitCode};

use zeroport::{CloseReason, EventLoop, PortId};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const MEMBERS: [&str; 3] = ["Ann", "Bob", "Cem"];

fn main() -> ExitCode {
    let outcome = match env::args().nth(1) {
        Some(name) => member(&name),
        None => room(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("listening: {error}");
            ExitCode::FAILURE
        }
    }
}

fn room() -> Outcome {
    // What handlers share lives longer than the loop; they run one after the other, so a `RefCell` will do.
    let inside: RefCell<Vec<PortId>> = RefCell::default();
    let inside = &inside;
    let mut events = EventLoop::new()?;
    let mut processes = Vec::new();
    for name in MEMBERS {
        let mut command = Command::new(env::current_exe()?);
        command.arg(name);
        let (port, process) = zeroport::spawn(command)?;
        processes.push(process);

        let port = events.insert(port)?;
        inside.borrow_mut().push(port);
        events
            .listeners_of(port)
            .on_message(move |turn, message| {
                println!("{name}: {}", String::from_utf8_lossy(message.bytes()));
                for other in inside.borrow().iter().filter(|other| **other != port) {
                    // Who is about to leave need not hear it.
                    let _ = turn.sender_of(*other).map(|sender| sender.post_bytes(message.bytes()));
                }
            })
            .on_close(move |_, reason| {
                inside.borrow_mut().retain(|member| *member != port);
                match reason {
                    CloseReason::Closed => println!("{name} has left"),
                    reason => println!("{name} is gone: {reason}"),
                }
            });
    }
    events.run()?;
    for mut process in processes {
        process.wait()?;
    }
    println!("listening: ok");
    Ok(())
}

/// Says hello, and leaves when all the others have said so; one of them by its end.
fn member(name: &str) -> Outcome {
    let (just_ends, mut greetings) = (name == MEMBERS[2], 0);
    let mut events = EventLoop::new()?;
    let room = events.insert(zeroport::parent_port()?)?;
    events.sender_of(room).ok_or("no room")?.post_bytes(b"hello")?;
    events.listeners_of(room).on_message(move |turn, _| {
        greetings += 1;
        if greetings == MEMBERS.len() - 1 {
            if just_ends {
                process::exit(0); // which closes nothing
            }
            turn.close(turn.port());
        }
    });
    events.run()?; // no port is left
    Ok(())
}
