//! C programs against the header and the library: built with the C compiler, run, and talked to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "c/interop.rs"]
mod interop;

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::with_watchdog;
use zeroport::{
    AsPodSlice, ChannelOptions, CloseReason, MessageChannel, MessagePort, NamedMessage, RecvError,
    ReplyError, Trust, transfer,
};
use zeroport_ffi::Status;

const HEADER: &str = include_str!("../../include/zeroport.h");
const STRICT: [&str; 5] = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"];

/// How a program gets at the library.
#[derive(Clone, Copy, Debug)]
enum Library {
    Static,
    Shared,
}

/// Where cargo has put the libraries: beside this test.
fn libraries() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn program_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Builds a C program from this folder; gives where it is.
fn build(source: &Path, name: &str, library: Library, more: &[&str]) -> PathBuf {
    let program = program_of(name);
    // Another test process may be about to run what is there.
    let fresh = program_of(&format!("{name}.{}", std::process::id()));
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
    compiler.args(STRICT).args(["-g", "-O1"]).args(more);
    compiler.arg("-I").arg(here("../include")).arg("-I").arg(here("tests"));
    compiler.arg("-o").arg(&fresh).arg(source);
    match library {
        Library::Static => compiler.arg(libraries().join("libzeroport_ffi.a")),
        Library::Shared => compiler
            .arg(libraries().join("libzeroport_ffi.so"))
            .arg(format!("-Wl,-rpath,{}", libraries().display())),
    };
    // What Rust's standard library needs.
    compiler.args(["-pthread", "-lgcc_s", "-lutil", "-lrt", "-lm", "-ldl"]);
    run(&mut compiler);
    std::fs::rename(fresh, &program).unwrap();
    program
}

/// Runs a program that must succeed; gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// A channel to give away on a port that is as trusted as `trust`.
fn channel(trust: Trust) -> (MessagePort, MessagePort) {
    let MessageChannel { port1, port2 } = ChannelOptions::new().trust(trust).open().unwrap();
    (port1, port2)
}

fn expect_bytes(port: &MessagePort, expected: &[u8]) {
    assert_eq!(port.recv().unwrap().bytes(), expected);
}

fn expect_closed(port: &MessagePort) {
    assert_eq!(port.recv().unwrap_err(), RecvError::Closed(CloseReason::Closed));
}

/// Starts the server in C, has the conversation, and sees it end.
fn with_server(name: &'static str, library: Library, trust: Trust) {
    with_watchdog(move || {
        let mut server = checked(&build_checked("tests/serve.c", name, library));
        if trust == Trust::Untrusted {
            server.arg("untrusted");
        }
        let (port, mut child) = ChannelOptions::new().trust(trust).spawn(server).unwrap();
        echoes(&port);
        a_reply_port_gets_ten_replies(&port, trust);
        ports_come_back(&port, trust);
        a_port_from_c(&port, trust);
        port.close();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

fn echoes(port: &MessagePort) {
    let mut message = b"echo".to_vec();
    message.resize(1 << 20, b'!');
    let max = port.max_in_ring();
    for len in [4, 5, 64, 1000, max, max + 1, message.len()] {
        port.post_bytes(&message[..len]).unwrap();
        expect_bytes(port, &message[..len]);
    }
    // Asked all at once.
    for n in 0..1000u32 {
        port.post_bytes(format!("echo {n}").as_bytes()).unwrap();
    }
    for n in 0..1000u32 {
        expect_bytes(port, format!("echo {n}").as_bytes());
    }
}

fn a_reply_port_gets_ten_replies(port: &MessagePort, trust: Trust) {
    for _ in 0..20 {
        let (mine, theirs) = channel(trust);
        port.post_bytes_with(b"count", transfer![theirs]).unwrap();
        for n in 1..=10 {
            expect_bytes(&mine, n.to_string().as_bytes());
        }
        expect_closed(&mine);
    }
}

fn ports_come_back(port: &MessagePort, trust: Trust) {
    for count in [1, 2, 65, 100] {
        let (mine, theirs): (Vec<_>, Vec<_>) = (0..count).map(|_| channel(trust)).unzip();
        for (n, port) in mine.iter().enumerate() {
            port.post_bytes(&n.to_le_bytes()).unwrap();
        }
        port.post_bytes_with(b"back", theirs).unwrap();
        let message = port.recv().unwrap();
        assert_eq!(message.bytes(), b"back");
        let theirs = message.take_all_ports().unwrap();
        assert_eq!(theirs.len(), count);
        for (n, (mine, theirs)) in mine.iter().zip(theirs).enumerate() {
            expect_bytes(&theirs, &n.to_le_bytes());
            theirs.post_bytes(b"home").unwrap();
            expect_bytes(mine, b"home");
        }
    }
}

fn a_port_from_c(port: &MessagePort, trust: Trust) {
    port.post_bytes(b"open").unwrap();
    let message = port.recv().unwrap();
    assert_eq!(message.bytes(), b"open");
    let [from_c] = message.take_ports().unwrap();
    assert_eq!(from_c.trust(), trust);
    expect_bytes(&from_c, b"from C");
    from_c.post_bytes(b"to C").unwrap();
    expect_bytes(&from_c, b"to C");
}

#[test]
fn a_server_in_c() {
    with_server("serve", Library::Static, Trust::Trusted);
}

#[test]
fn a_server_in_c_for_a_stranger() {
    with_server("serve-stranger", Library::Static, Trust::Untrusted);
}

#[test]
fn a_server_with_the_shared_library() {
    with_server("serve-shared", Library::Shared, Trust::Trusted);
}

/// The example at the top of the header, as it stands there.
#[test]
fn the_example_of_the_header_echoes() {
    with_watchdog(|| {
        let lines = HEADER.lines().filter_map(|line| line.strip_prefix(" *      "));
        let example: Vec<_> = lines.skip_while(|line| *line != "zp_port parent;").collect();
        let end = example.iter().position(|line| line.starts_with("zp_port_close")).unwrap();
        let body = example[..=end].join("\n");
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example.c");
        let includes = "#include <stdio.h>\n#include \"zeroport.h\"";
        let program = format!("{includes}\nint main(void) {{\n{body}\nreturn 0;\n}}\n");
        std::fs::write(&source, program).unwrap();

        let mut echo = Command::new(build(&source, "example", Library::Static, &[]));
        echo.stdout(Stdio::piped());
        let (port, child) = zeroport::spawn(echo).unwrap();
        for n in 0..100u32 {
            port.post_bytes(&n.to_le_bytes()).unwrap();
            expect_bytes(&port, &n.to_le_bytes());
        }
        port.close();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"the channel was closed\n");
    });
}

const SANITIZERS: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// Builds a program that talks to Rust, so that what is wrong in it ends it: with sanitizers, or for `ci/valgrind`.
fn build_checked(file: &str, name: &str, library: Library) -> PathBuf {
    let is_under = std::env::var_os(UNDER).is_some();
    build(&here(file), name, library, if is_under { &[] } else { &SANITIZERS })
}

/// Starts such a program.
fn checked(program: &Path) -> Command {
    if let Ok(under) = std::env::var(UNDER) {
        let mut words = under.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(program);
        return command;
    }
    let mut command = Command::new(program);
    // Leaks are looked for by ptrace, which is not allowed everywhere.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
    command
}

/// Names what `ci/valgrind` has the programs of the suite run under, instead of the usual ways.
const UNDER: &str = "ZEROPORT_C_UNDER";

/// Runs a program that checks for itself: with sanitizers, which see what the library does to the heap, too, and with the
/// shared library. Gives where it is.
fn run_suite(source: &'static str, name: &'static str) -> PathBuf {
    with_watchdog(move || {
        run(&mut checked(&build_checked(source, name, Library::Static)));
        if std::env::var_os(UNDER).is_some() {
            return;
        }
        let shared = build(&here(source), &format!("{name}-shared"), Library::Shared, &[]);
        run(&mut Command::new(shared));
    });
    program_of(name)
}

#[test]
fn misuse_gives_a_status_and_never_a_crash() {
    run_suite("tests/misuse.c", "misuse");
}

/// A function that is declared and has no row is one that nobody has tried.
#[test]
fn every_function_with_every_bad_handle_and_pointer() {
    let program = run_suite("tests/handles.c", "handles");
    let listed = run(Command::new(program).arg("list"));
    assert_eq!(listed.lines().collect::<BTreeSet<_>>(), declared());
}

#[test]
fn calls_from_inside_of_handlers() {
    run_suite("tests/inside.c", "inside");
}

#[test]
fn a_process_without_descriptors_loses_nothing() {
    run_suite("tests/scarce.c", "scarce");
}

#[test]
fn posts_loans_batches_buffers_and_descriptors() {
    run_suite("tests/posts.c", "posts");
}

#[test]
fn sets_and_loops_tell_what_there_is() {
    run_suite("tests/loops.c", "loops");
}

#[test]
fn children_servers_and_callers() {
    run_suite("tests/contact.c", "contact");
}

#[test]
fn what_is_used_often_tells_the_same() {
    run_suite("tests/often.c", "often");
}

#[test]
fn threads_get_in_one_at_a_time() {
    run_suite("tests/threads.c", "threads");
}

/// Requests of Rust to C and of C to Rust.
fn names(trust: Trust) {
    with_watchdog(move || {
        let name = format!("names-{trust:?}");
        let program = checked(&build_checked("tests/names.c", &name, Library::Static));
        let (port, mut child) = ChannelOptions::new().trust(trust).spawn(program).unwrap();

        let sum = port.invoke("sum", &AsPodSlice(&[1u32, 20, 300]), transfer![]).unwrap();
        assert_eq!(sum.recv().unwrap().pod::<u32>().unwrap(), &321);
        assert_eq!(sum.recv().unwrap_err(), ReplyError::Closed(CloseReason::Closed));

        let nothing = [].as_slice();
        let failed = port.invoke("fail", nothing, transfer![]).unwrap();
        assert_eq!(failed.recv().unwrap_err(), ReplyError::Failed("on purpose".into()));
        let unknown = port.invoke("unknown", nothing, transfer![]).unwrap();
        assert_eq!(unknown.recv().unwrap_err(), ReplyError::NeverSent);

        let asked = port.invoke("ask back", nothing, transfer![]).unwrap();
        let expect = |name: &str| {
            let message = NamedMessage::open(port.recv().unwrap()).unwrap();
            assert_eq!(message.name(), name);
            message
        };
        let responder = |name: &str| expect(name).responder().unwrap().unwrap();
        responder("number").reply(&AsPodSlice(&[42u32])).unwrap();
        responder("refused").fail("not today").unwrap();
        assert_eq!(expect("why").bytes(), b"not today");
        assert_eq!(asked.recv().unwrap().pod::<u32>().unwrap(), &42);

        port.close();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn names_among_trusted() {
    names(Trust::Trusted);
}

#[test]
fn names_among_strangers() {
    names(Trust::Untrusted);
}

#[test]
fn names_and_requests_are_checked() {
    run_suite("tests/names.c", "names");
}

/// The functions that the header declares.
fn declared() -> BTreeSet<&'static str> {
    let word = |text: &'static str| {
        let start =
            text.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        &text[start..]
    };
    let code = HEADER.lines().filter(|line| !line.starts_with(" *") && !line.starts_with("/*"));
    code.filter_map(|line| line.split_once('('))
        .map(|(before, _)| word(before))
        .filter(|name| name.starts_with("zp_"))
        .collect()
}

#[test]
fn the_library_exports_what_the_header_declares() {
    let library = libraries().join("libzeroport_ffi.so");
    let symbols = run(Command::new("nm").args(["--dynamic", "--defined-only", "-P"]).arg(library));
    let exported: BTreeSet<_> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(declared().len() > 10, "{:?}", declared());
    assert_eq!(exported, declared());
}

#[test]
fn header_and_library_have_the_same_statuses() {
    let in_header: BTreeSet<_> = HEADER
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ZP_")?.split_once(" = "))
        .map(|(name, rest)| {
            let number = rest.split([',', ' ', '\n']).next().unwrap();
            (format!("ZP_{name}"), number.parse::<u32>().unwrap())
        })
        .collect();
    let in_library: BTreeSet<_> =
        Status::ALL.iter().map(|(status, name)| ((*name).to_owned(), *status as u32)).collect();
    assert_eq!(in_header, in_library);
    let texts: BTreeSet<_> = Status::ALL.iter().map(|(status, _)| status.text()).collect();
    assert_eq!(texts.len(), Status::ALL.len(), "each says something else");
}

/// What Rust says of a type of the header, as `layout.c` does.
macro_rules! layout {
    ($lines:ident, $($name:literal $type:ident { $($field:ident)* })*) => {$(
        $lines.push(format!("size {} {}", $name, size_of::<zeroport_ffi::$type>()));
        $lines.push(format!("align {} {}", $name, align_of::<zeroport_ffi::$type>()));
        $(
            let place = offset_of!(zeroport_ffi::$type, $field);
            $lines.push(format!("place {}.{} {place}", $name, stringify!($field)));
        )*
    )*};
}

fn layout_in_rust() -> Vec<String> {
    let mut lines = Vec::new();
    layout! { lines,
        "zp_port" CPort { id }
        "zp_buffer" CBuffer { id }
        "zp_server" CServer { id }
        "zp_caller" CCaller { id }
        "zp_set" CSet { id }
        "zp_loop" CLoop { id }
        "zp_item" CItem { id }
        "zp_status" Status {}
        "zp_channel_options" COptions { size trust wait capacity limit cold reserved }
        "zp_post" CPost { data len items item_count tag reserved }
        "zp_loan" CLoan { data len opaque }
        "zp_message" CMessage { data len tag port_count buffer_count reserved opaque }
        "zp_named" CNamed { name name_len data len tag is_request }
        "zp_info" CPortInfo { max_payload max_in_ring sleeps is_trusted is_member }
        "zp_credentials" CCredentials { uid gid pid pidfd }
        "zp_event" CEvent { user port kind status message }
        "zp_handlers" CHandlers { size on_message on_close on_error removed }
    }
    let mut values = |names: [&str; 3], values: [u32; 3]| {
        let lines_of = names.into_iter().zip(values);
        lines.extend(lines_of.map(|(name, value)| format!("value {name} {value}")));
    };
    values(["ZP_TRUST_USUAL", "ZP_TRUST_TRUSTED", "ZP_TRUST_UNTRUSTED"], zeroport_ffi::TRUSTS);
    values(["ZP_WAIT_ADAPTIVE", "ZP_WAIT_SLEEP", "ZP_WAIT_SPIN"], zeroport_ffi::WAITS);
    lines.push(format!("value ZP_LIMIT_USUAL {}", zeroport_ffi::USUAL_LIMIT));
    let mut values = |names: [&str; 3], values: [u32; 3]| {
        let lines_of = names.into_iter().zip(values);
        lines.extend(lines_of.map(|(name, value)| format!("value {name} {value}")));
    };
    values(["ZP_EVENT_MESSAGE", "ZP_EVENT_CLOSED", "ZP_EVENT_FAILED"], zeroport_ffi::EVENTS);
    lines.push(format!("value ZP_TICKET_LEN {}", zeroport_ffi::TICKET_LEN));
    lines.push(format!("value ZP_MAX_DESCRIPTORS {}", zeroport_ffi::MAX_DESCRIPTORS));
    lines.push(format!("value ZP_TAG_FAILED {}", zeroport_ffi::TAG_FAILED));
    lines.push(format!("value ZP_NO_INDEX {}", zeroport_ffi::NO_INDEX));
    lines
}

#[test]
fn header_and_library_have_the_same_layout() {
    with_watchdog(|| {
        let program = build(&here("tests/layout.c"), "layout", Library::Static, &[]);
        let in_c = run(&mut Command::new(program));
        assert_eq!(in_c.lines().collect::<Vec<_>>(), layout_in_rust());
    });
}

/// Every type, field and constant of the header, as `layout.c` would name it.
fn named_in_the_header() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut structure = None;
    for line in HEADER.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("typedef struct ") {
            let name = name.trim_end_matches(" {");
            names.insert(format!("size {name}"));
            structure = Some(name);
        } else if line.starts_with('}') {
            structure = None;
        } else if let (Some(structure), Some(field)) = (structure, field_of(line)) {
            names.insert(format!("place {structure}.{field}"));
        } else if let Some((name, _)) =
            line.strip_prefix("#define ").and_then(|line| line.split_once(' '))
            && !name.starts_with("ZP_VERSION")
            && !name.ends_with("_INIT")
        {
            names.insert(format!("value {name}"));
        }
    }
    names
}

/// The name that a line of a struct declares.
fn field_of(line: &str) -> Option<&str> {
    if line.starts_with("/*") || line.starts_with('*') {
        return None;
    }
    let (declaration, _) = line.split_once(';')?;
    let name = match declaration.split_once("(*") {
        Some((_, function)) => function.split(')').next()?,
        None => declaration.split('[').next()?.rsplit([' ', '*']).next()?,
    };
    Some(name)
}

#[test]
fn all_of_the_header_has_its_place_in_the_layout() {
    let known: BTreeSet<_> = layout_in_rust()
        .iter()
        .filter(|line| !line.starts_with("align ") && *line != "size zp_status 4")
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect();
    assert!(known.len() > 70, "{known:?}");
    assert_eq!(named_in_the_header(), known);
}

/// Compiled programs rely on all of it: `ZP_BLESS=1` writes it anew.
#[test]
fn the_abi_is_as_recorded() {
    let functions = declared().into_iter().map(|name| format!("function {name}"));
    let statuses =
        Status::ALL.iter().map(|(status, name)| format!("status {name} {}", *status as u32));
    let lines: Vec<_> = functions.chain(statuses).chain(layout_in_rust()).collect();
    let (file, now) = (here("abi.txt"), lines.join("\n") + "\n");
    if std::env::var_os("ZP_BLESS").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let recorded = std::fs::read_to_string(file).unwrap();
    assert!(recorded == now, "the ABI has changed; if that is meant: ZP_BLESS=1");
}

/// The shared library as it is installed: linked from the static one, with a soname and symbol versions.
#[test]
fn the_installed_library_has_a_soname_and_versions() {
    with_watchdog(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libzeroport.so.0");
        let mut linker = Command::new(here("link-shared"));
        linker.arg(libraries().join("libzeroport_ffi.a")).arg(&library);
        run(linker.arg("libzeroport.so.0"));
        let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
        assert!(dynamic.contains("soname: [libzeroport.so.0]"), "{dynamic}");
        let symbols = run(Command::new("nm").args(["-D", "--defined-only", "-P"]).arg(library));
        let exported: BTreeSet<_> = symbols
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|name| *name != "ZEROPORT_0.1")
            .map(|name| name.strip_suffix("@@ZEROPORT_0.1").unwrap_or(name))
            .collect();
        assert_eq!(exported, declared());
    });
}
