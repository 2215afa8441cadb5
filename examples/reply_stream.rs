//! A request that carries a port of its own for the replies: as many as there are, and then the end.
//!
//! `cargo run --example reply_stream`
//!
//! No request number, no "last one" flag, no time-out: the close of the reply port says that the stream
//! has ended, also when the server dies, and also when there was never a reply.

use std::env;
use std::error::Error;
use std::process::{self, Command, ExitCode};

use zeroport::{CloseReason, MessageChannel, MessagePort, Postable, RecvError, Tagged, transfer};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[derive(rkyv::Archive, rkyv::Serialize)]
struct GiveMeAStream {
    element: u32,
    count: u32,
    then: Then,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
enum Then {
    Close,
    Exit,
}

impl Tagged for GiveMeAStream {
    const NAME: &'static str = "reply_stream.GiveMeAStream";
}

fn main() -> ExitCode {
    let is_server = env::args().nth(1).is_some_and(|argument| argument == "--server");
    match if is_server { serve() } else { ask_all() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reply_stream: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- Who asks ---

fn ask_all() -> Outcome {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--server");
    let (server, mut process) = zeroport::spawn(command)?;

    let request = GiveMeAStream { element: 42, count: 10, then: Then::Close };
    expect(ask(&server, &request)? == (10, CloseReason::Closed))?;

    // The server takes the reply port, and drops it unanswered.
    let request = GiveMeAStream { element: 42, count: 0, then: Then::Close };
    expect(ask(&server, &request)? == (0, CloseReason::Closed))?;

    // The server does not understand, and drops the message with the port in it.
    let request = "give me a stream, please".to_string();
    expect(ask(&server, &request)? == (0, CloseReason::Lost))?;

    // The server exits in the middle of its work; what it had replied is received first.
    let request = GiveMeAStream { element: 7, count: 10, then: Then::Exit };
    expect(ask(&server, &request)? == (10, CloseReason::PeerDied))?;

    process.wait()?;
    println!("reply_stream: ok");
    Ok(())
}

/// Posts a request and prints the replies as they come. Says how many there were, and why there are
/// no more.
fn ask<T: Postable>(server: &MessagePort, request: &T) -> Outcome<(u32, CloseReason)> {
    // Channels are cheap: a fresh one for each request. One end goes with it, the other stays here.
    let MessageChannel { port1: replies, port2 } = MessageChannel::new()?;
    server.post_with(request, transfer![port2])?;
    let mut count = 0;
    loop {
        match replies.recv() {
            Ok(reply) => println!("got response data: {}", reply.get::<u32>()?),
            Err(RecvError::Closed(reason)) => {
                let what = if count == 0 { "reply was never sent" } else { "stream ended" };
                println!("{what} ({reason})");
                return Ok((count, reason));
            }
            Err(error) => return Err(error.into()),
        }
        count += 1;
    }
}

fn expect(holds: bool) -> Outcome {
    if holds { Ok(()) } else { Err("the replies are not those that were asked for".into()) }
}

// --- Who answers ---

fn serve() -> Outcome {
    let clients = zeroport::parent_port()?;
    while let Ok(message) = clients.recv() {
        // Not a request: the message goes, and with it the port that nobody took.
        let Ok(request) = message.get::<GiveMeAStream>() else { continue };
        let [reply] = message.take_ports()?;
        for _ in 0..request.count.to_native() {
            reply.post(&request.element.to_native())?;
        }
        match request.then {
            ArchivedThen::Close => reply.close(),
            ArchivedThen::Exit => process::exit(0),
        }
    }
    Ok(())
}
