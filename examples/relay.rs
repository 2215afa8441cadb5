//! A port goes through a third process, which then exits; the two ends keep talking.
//!
//! `cargo run --example relay`
//!
//! ```text
//!              the port            the port
//!      here ──────────────▶ relay ──────────────▶ far
//!        ╰──────────── the two ends talk ───────────╯
//! ```
//!
//! What waits in a port travels with it, and nothing ever goes *through* the relay: a port is the
//! memory itself, not a route. So it does not matter whether the relay is busy, stopped or gone.

use std::env;
use std::error::Error;
use std::process::{Child, Command, ExitCode};

use zeroport::{MessageChannel, MessagePort, RecvError, transfer};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match env::args().nth(1).as_deref() {
        Some("--relay") => relay(),
        Some("--far") => far(),
        _ => here(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn here() -> Outcome {
    let (relay, mut relay_process) = start("--relay")?;
    let (far, mut far_process) = start("--far")?;
    // Introduces the two: from here on they have a channel of their own.
    let MessageChannel { port1, port2 } = MessageChannel::new()?;
    relay.post_with(&"you are the relay".to_string(), transfer![port1])?;
    far.post_with(&"expect a port".to_string(), transfer![port2])?;

    let MessageChannel { port1: port, port2: other } = MessageChannel::new()?;
    port.post(&"posted before it left".to_string())?;
    relay.post_with(&"pass this on".to_string(), transfer![other])?;
    port.post(&"posted while it travels".to_string())?;

    let status = relay_process.wait()?;
    println!("the relay is gone ({status})");
    port.post(&"posted after the relay was gone".to_string())?;

    for _ in 0..3 {
        println!("far: {}", port.recv()?.get::<String>()?);
    }
    port.close(); // and so the far process ends, too
    let is_well = far_process.wait()?.success() && status.success();
    if !is_well {
        return Err("a process has failed".into());
    }
    println!("relay: ok");
    Ok(())
}

fn start(role: &str) -> Outcome<(MessagePort, Child)> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(role);
    Ok(zeroport::spawn(command)?)
}

/// Passes a port on, with all that waits in it, and exits.
fn relay() -> Outcome {
    let here = zeroport::parent_port()?;
    let [far] = here.recv()?.take_ports()?;
    let message = here.recv()?;
    far.post_with(&message.get::<String>()?.to_string(), message.take_all_ports()?)?;
    Ok(())
}

/// Takes a port from the relay, and answers until the other end is closed.
fn far() -> Outcome {
    let [relay] = zeroport::parent_port()?.recv()?.take_ports()?;
    let [port] = relay.recv()?.take_ports()?;
    loop {
        match port.recv() {
            Ok(message) => port.post(&format!("received \"{}\"", message.get::<String>()?))?,
            Err(RecvError::Closed(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
