//! Two ports, and a post before anyone listens.
//!
//! `cargo run --example hello`

use std::error::Error;
use std::thread;

use zeroport::MessageChannel;

fn main() -> Result<(), Box<dyn Error>> {
    let MessageChannel { port1, port2 } = MessageChannel::new()?;

    // Nobody listens yet; the messages wait in the channel, in order.
    port1.post_bytes(b"hello")?;
    port1.post_bytes(b"is anybody there?")?;

    let listener = thread::spawn(move || {
        while let Ok(message) = port2.recv() {
            println!("port2 received: {}", message.bytes().escape_ascii());
            // Replying while the message is held: the other direction has a ring of its own.
            if message.bytes().ends_with(b"?") && port2.post_bytes(b"yes, now").is_err() {
                return;
            }
        }
        println!("port2: port1 is closed");
    });

    let reply = port1.recv()?;
    println!("port1 received: {}", reply.bytes().escape_ascii());
    drop(reply);
    port1.close();

    listener.join().map_err(|_| "the listener panicked")?;
    println!("hello: ok");
    Ok(())
}
