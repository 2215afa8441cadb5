//! A child with a port to its parent: messages with ports in both directions, its output, and how it ends.
//!
//! `cargo run --example utility`
//!
//! What `utilityProcess` and `parentPort` are to Electron. The child is a `std::process::Child`, and its end comes twice: to
//! `on_close` after its last message, and to `wait`.

use std::env;
use std::error::Error;
use std::io::Read;
use std::process::{self, Command, ExitCode, Stdio};

use zeroport::{EventLoop, MessageChannel};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let is_child = env::args().nth(1).is_some_and(|argument| argument == "--child");
    match if is_child { child() } else { parent() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("utility: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent() -> Outcome {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--child").stdout(Stdio::piped());
    let (port, mut process) = zeroport::spawn(command)?;

    let MessageChannel { port1: ours, port2 } = MessageChannel::new()?;
    port.post_bytes_with(b"use this port", port2)?; // waits until the child listens
    ours.post_pod(&21u32)?;

    let mut events = EventLoop::new()?;
    let (port, ours) = (events.insert(port)?, events.insert(ours)?);
    events.listeners_of(ours).on_pod::<u32>(|turn, number, _| {
        println!("on our port: {number}");
        turn.close(turn.port());
    });
    events
        .listeners_of(port)
        .on_message(|turn, message| {
            println!("from the child: {}", message.bytes().escape_ascii());
            let Ok([port]) = message.take_ports() else { return };
            turn.later(|events| {
                let Ok(port) = events.insert(port) else { return };
                events.listeners_of(port).on_message(|_, message| {
                    println!("on the child's port: {}", message.bytes().escape_ascii());
                });
            });
        })
        .on_close(|_, reason| println!("the child: {reason}"));
    events.run()?; // until all ports are closed

    let mut output = String::new();
    process.stdout.take().ok_or("no output")?.read_to_string(&mut output)?;
    println!("its output: {}", output.trim_end());
    println!("its exit code: {:?}", process.wait()?.code());
    println!("utility: ok");
    Ok(())
}

fn child() -> Outcome {
    let mut events = EventLoop::new()?;
    let parent = events.insert(zeroport::parent_port()?)?;
    events.listeners_of(parent).on_message(|turn, message| {
        let Ok([port]) = message.take_ports() else { return };
        turn.later(|events| {
            let Ok(port) = events.insert(port) else { return };
            events.listeners_of(port).on_pod::<u32>(|turn, number, _| {
                println!("doubling {number}");
                let _ = turn.sender().post_pod(&(2 * number)); // who asked may have gone
                turn.stop();
            });
        });
    });
    events.run()?;

    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    port1.post_bytes(b"all done")?;
    let parent = events.sender_of(parent).ok_or("the parent has gone")?;
    parent.post_bytes_with(b"good-bye", port2)?;
    process::exit(7) // which closes nothing, and loses nothing
}
