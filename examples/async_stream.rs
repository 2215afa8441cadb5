//! Streams of replies, as async streams of tokio: several at once, in one task.
//!
//! `cargo run --features tokio --example async_stream`
//!
//! Each request brings a port of its own for its replies. What comes on it is a `Stream`; it ends with the channel, for
//! whatever reason, and that can be asked for.

use std::env;
use std::error::Error;
use std::process::{self, Command, ExitCode};

use futures_util::TryStreamExt;
use zeroport::tokio::AsyncPort;
use zeroport::{AsPod, CloseReason, Handlers, Message, MessagePort, RecvError, transfer};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let is_server = env::args().nth(1).is_some_and(|argument| argument == "--server");
    match if is_server { serve() } else { ask_all() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("async_stream: {error}");
            ExitCode::FAILURE
        }
    }
}

// --- Who asks ---

#[tokio::main(flavor = "current_thread")]
async fn ask_all() -> Outcome {
    let mut command = Command::new(env::current_exe()?);
    command.arg("--server");
    let (server, mut process) = zeroport::spawn(command)?;

    let (fours, sevens) = tokio::join!(
        ask(&server, "give-me-a-stream", [4, 10]),
        ask(&server, "give-me-a-stream", [7, 100_000]),
    );
    expect("fours", fours, &[4; 10], Ok(CloseReason::Closed))?;
    expect("sevens", sevens, &[7; 100_000], Ok(CloseReason::Closed))?;
    let unknown = ask(&server, "give-me-a-river", [1, 1]).await;
    expect("a river", unknown, &[], Err("nobody handles \"give-me-a-river\""))?;
    // The server dies in the middle of its work; what it had replied is received first.
    let last = ask(&server, "give-me-a-stream-and-die", [9, 3]).await;
    expect("nines", last, &[9; 3], Ok(CloseReason::PeerDied))?;
    process.wait()?;
    println!("async_stream: ok");
    Ok(())
}

/// Posts a request and collects the replies: how many, and why there are no more.
async fn ask(
    server: &MessagePort,
    name: &str,
    element_and_count: [u32; 2],
) -> Outcome<(Vec<u32>, Result<CloseReason, String>)> {
    // A task had better not wait for room in a queue; this would say that it is full.
    let reply = server.try_invoke(name, &AsPod(element_and_count), transfer![])?;
    let mut stream = AsyncPort::new(reply.into_port()).receiver.into_stream(element);
    let mut elements = Vec::new();
    while let Some(element) = stream.try_next().await? {
        match element {
            Ok(element) => elements.push(element),
            Err(why) => return Ok((elements, Err(why))),
        }
    }
    match stream.into_inner().try_recv() {
        Err(RecvError::Closed(reason)) => Ok((elements, Ok(reason))),
        other => Err(format!("the stream has ended, and then {other:?}").into()),
    }
}

/// A stream lends nothing: this is what is made of each message.
fn element(message: &Message<'_>) -> Result<u32, String> {
    match message.failure() {
        Some(why) => Err(why),
        None => message.pod::<u32>().copied().map_err(|error| error.to_string()),
    }
}

fn expect(
    what: &str,
    got: Outcome<(Vec<u32>, Result<CloseReason, String>)>,
    elements: &[u32],
    end: Result<CloseReason, &str>,
) -> Outcome {
    let (got, got_end) = got?;
    println!("{what}: {} came, then {got_end:?}", got.len());
    if got != elements || got_end != end.map_err(str::to_string) {
        return Err("these are not the replies that were asked for".into());
    }
    Ok(())
}

// --- Who answers ---

fn serve() -> Outcome {
    let mut handlers = Handlers::new();
    for (name, dies) in [("give-me-a-stream", false), ("give-me-a-stream-and-die", true)] {
        handlers.on(name, move |event| {
            let (Ok([element, count]), Ok(Some(stream))) =
                (event.pod::<[u32; 2]>(), event.responder())
            else {
                return;
            };
            let stream = stream.into_port();
            for _ in 0..*count {
                let Ok(()) = stream.post_pod(element) else { return };
            }
            if dies {
                process::abort();
            }
        }); // the stream ends with its port
    }
    handlers.serve(&zeroport::parent_port()?, &())?;
    Ok(())
}
