//! How a channel ends, and what the other end is told: always after the last message, once, and then
//! for ever.
//!
//! `cargo run --example close`
//!
//! One reason is not shown, as it takes a hostile peer: `Violated`, for an other side that broke the
//! protocol of the shared memory.

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

use zeroport::{CloseReason, MessageChannel, MessagePort, PeerState, RecvError};

fn main() -> ExitCode {
    let is_child = env::args().nth(1).is_some_and(|argument| argument == "--child");
    match if is_child { child() } else { show_all() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("close: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show_all() -> Result<(), Box<dyn Error>> {
    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    port1.post_bytes(b"last words")?;
    port1.close();
    // The state is known at once, the end comes in its turn.
    expect(port2.peer_state() == PeerState::Closed(CloseReason::Closed))?;
    end_of("closed", &port2, CloseReason::Closed)?;
    expect(port2.post_bytes(b"too late").is_err())?;

    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    drop(port1);
    end_of("dropped", &port2, CloseReason::Closed)?;

    let mut command = Command::new(env::current_exe()?);
    command.arg("--child");
    let (port, mut process) = zeroport::spawn(command)?;
    expect(port.recv()?.bytes() == b"ready")?;
    process.kill()?;
    end_of("killed", &port, CloseReason::PeerDied)?;
    process.wait()?;

    // A program that knows nothing of its port and never takes it.
    let (port, mut process) = zeroport::spawn(Command::new("true"))?;
    end_of("never taken", &port, CloseReason::Lost)?;
    process.wait()?;

    println!("close: ok");
    Ok(())
}

/// Receives until the end of the channel, and checks the reason.
fn end_of(what: &str, port: &MessagePort, expected: CloseReason) -> Result<(), Box<dyn Error>> {
    let reason = loop {
        match port.recv() {
            Ok(message) => println!("{what}: message \"{}\"", message.bytes().escape_ascii()),
            Err(RecvError::Closed(reason)) => break reason,
            Err(error) => return Err(error.into()),
        }
    };
    println!("{what}: {reason:?} ({reason})");
    expect(reason == expected && port.recv().is_err())
}

fn expect(holds: bool) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err("the channel did not end as it should".into()) }
}

/// Takes its port, says so, and waits for a message that never comes.
fn child() -> Result<(), Box<dyn Error>> {
    let port = zeroport::parent_port()?;
    port.post_bytes(b"ready")?;
    port.recv()?;
    Ok(())
}
