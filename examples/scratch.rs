#![allow(unsafe_code, missing_docs, clippy::all)]
use std::process::Command;
use std::time::Instant;
use zeroport::*;
fn pin(cpu: usize) { unsafe { let mut s: libc::cpu_set_t = std::mem::zeroed(); libc::CPU_SET(cpu, &mut s); libc::sched_setaffinity(0, size_of_val(&s), &s); } }
fn child(mode: &str) {
    let port = parent_port().unwrap();
    port.set_wait_strategy(if mode.contains("sleep") { WaitStrategy::Sleep } else { WaitStrategy::Spin });
    pin(1);
    match mode {
        "stream" => { let mut n=0u64; let mut x = 0u64; loop { match port.recv() { Ok(m) => { let w: &[u64;8] = bytemuck::from_bytes(m.bytes()); x ^= w.iter().fold(0,|a,b| a^b); n+=1; if w[0]==u64::MAX {break} } Err(_) => break } } port.post_bytes(&(n^ (x&0)).to_le_bytes()).unwrap(); let _ = port.recv(); eprintln!("child sleeps {}", port.sleeps()); }
        _ => { loop { match port.recv() { Ok(m) => { let mut b=[0u8;64]; b.copy_from_slice(m.bytes()); drop(m); port.post_bytes(&b).unwrap(); } Err(e) => { eprintln!("child: {e}"); break } } } }
    }
}
fn main() {
    if let Ok(m) = std::env::var("MODE") { return child(&m); }
    pin(0);
    for _ in 0..3 {
    for mode in ["stream","rtt","rtt_sleep"] {
        let mut c = Command::new(std::env::current_exe().unwrap()); c.env("MODE", mode);
        let (port, mut ch) = spawn(c).unwrap();
        port.set_wait_strategy(if mode.contains("sleep") { WaitStrategy::Sleep } else { WaitStrategy::Spin });
        if mode=="stream" {
            let n = 20_000_000u64;
            let mut w=[0u64;8];
            for i in 0..2_000_000 { w.fill(i); port.post_bytes(bytemuck::bytes_of(&w)).unwrap(); }
            let t=Instant::now();
            for i in 0..n { w.fill(i); port.post_bytes(bytemuck::bytes_of(&w)).unwrap(); }
            w[0]=u64::MAX; port.post_bytes(bytemuck::bytes_of(&w)).unwrap();
            let _ = port.recv().unwrap();
            let e=t.elapsed(); println!("stream {:.1} M/s", n as f64/e.as_secs_f64()/1e6);
        } else {
            let n = if mode=="rtt" {1_000_000} else {50_000};
            let b=[1u8;64];
            for _ in 0..n/5 { port.post_bytes(&b).unwrap(); let m = port.recv().unwrap(); assert_eq!(m.bytes(), &b); }
            let t=Instant::now();
            for _ in 0..n { port.post_bytes(&b).unwrap(); let m = port.recv().unwrap(); assert_eq!(m.bytes(), &b); }
            println!("{mode} {:.0} ns  sleeps {}", t.elapsed().as_nanos() as f64/n as f64, port.sleeps());
        }
        drop(port);
        ch.wait().unwrap();
    }}
}
