//! C++ programs against `zeroport.hpp` and the library: built with the C++ compiler, run, and talked to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use support::with_watchdog;
use zeroport::{ChannelOptions, MessagePort, Tagged, Trust};

const HEADER: &str = include_str!("../../include/zeroport.hpp");
const C_HEADER: &str = include_str!("../../include/zeroport.h");
const STRICT: [&str; 6] = ["-pedantic", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror"];
const SANITIZED: [&str; 3] =
    ["-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const WITHOUT_EXCEPTIONS: [&str; 4] = ["-std=c++20", "-O1", "-fno-exceptions", "-fno-rtti"];

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn compiler() -> Command {
    let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()));
    compiler.arg("-I").arg(here("../include"));
    compiler
}

/// Builds a C++ program of some sources; gives where it is.
fn build(sources: &[&str], name: &str, options: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let libraries = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut compiler = compiler();
    compiler.args(STRICT).arg("-g").args(options).arg("-I").arg(here("tests"));
    compiler.arg("-o").arg(&program).args(sources.iter().map(|source| here(source)));
    compiler.arg(libraries.join("libzeroport_ffi.a"));
    // What Rust's standard library needs.
    compiler.args(["-pthread", "-lgcc_s", "-lutil", "-lrt", "-lm", "-ldl"]);
    run(&mut compiler);
    program
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let text = text.concat();
    (output, text)
}

/// Runs a program that must succeed; gives what it printed.
fn run(command: &mut Command) -> String {
    let (output, text) = output(command);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Names what `ci/valgrind` has the programs run under, instead of the usual ways.
const UNDER: &str = "ZEROPORT_C_UNDER";

/// Runs a test program, of two translation units, in both ways of C++: with sanitizers, which see what the
/// library does to the heap, too, and without exceptions.
fn run_both(name: &'static str) {
    with_watchdog(move || {
        let sources = [&format!("tests/{name}.cpp"), "tests/other.cpp"];
        if let Ok(under) = std::env::var(UNDER) {
            let program = build(&sources, &format!("{name}-cpp"), &["-std=c++17"]);
            let mut words = under.split(' ');
            let mut command = Command::new(words.next().unwrap());
            run(command.args(words).arg(program));
            return;
        }
        let program = build(&sources, &format!("{name}-cpp"), &SANITIZED);
        // Leaks are looked for by ptrace, which is not allowed everywhere.
        run(Command::new(program).env("ASAN_OPTIONS", "detect_leaks=0"));
        let program = build(&sources, &format!("{name}-cpp-plain"), &WITHOUT_EXCEPTIONS);
        run(&mut Command::new(program));
    });
}

#[test]
fn ports_messages_loans_buffers_and_their_owners() {
    run_both("ports");
}

#[test]
fn sets_and_loops() {
    run_both("gatherings");
}

#[test]
fn children_and_servers() {
    run_both("contact");
}

/// Without exceptions, a value that is not there ends the program, which says why.
#[test]
fn a_missing_value_is_told() {
    with_watchdog(|| {
        let program = build(&["tests/missing.cpp"], "missing-cpp", &WITHOUT_EXCEPTIONS);
        let (output, text) = output(&mut Command::new(program));
        assert_eq!(output.status.code(), None, "a signal");
        assert_eq!(text, "zeroport: nothing there yet\n");
    });
}

/// Whether functions of one call each are C++, and what the compiler says.
fn compiles(calls: &[&str], file: &str) -> (bool, String) {
    let functions: String = calls
        .iter()
        .enumerate()
        .map(|(n, call)| format!("void use{n}(zeroport::port &port) {{ (void){call}; }}\n"))
        .collect();
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    let types = "struct nameless { int number; };\nenum loose { one };";
    std::fs::write(&source, format!("#include \"zeroport.hpp\"\n{types}\n{functions}")).unwrap();
    let mut compiler = compiler();
    compiler.args(["-std=c++17", "-fsyntax-only"]).arg(&source);
    let (output, text) = output(&mut compiler);
    (output.status.success(), text)
}

/// What is no plain data is refused by the compiler, which says why.
#[test]
fn the_compiler_refuses_what_is_no_plain_data() {
    let refused = [
        ("port.post(std::string())", "must be trivially copyable"),
        ("port.post(&port)", "a pointer leads nowhere"),
        ("port.recv()->get<bool>()", "a bool is 0 or 1"),
        ("port.post(\"text\")", "take a std::array, or post_slice"),
        ("port.post('c')", "plain data has a name"),
        ("port.post(loose{})", "give the enum an underlying type"),
    ];
    let (is_fine, text) = compiles(&refused.map(|(call, _)| call), "refused.cpp");
    assert!(!is_fine);
    for (call, why) in refused {
        assert!(text.contains(why), "{call}: {text}");
    }
    assert!(!compiles(&["port.post(nameless{1})"], "nameless.cpp").0);
    let (is_fine, text) = compiles(&["port.post(1)", "port.post_bytes(\"c\")"], "taken.cpp");
    assert!(is_fine, "{text}");
}

/// The functions of which some code (no comment) speaks.
fn functions(code: &str) -> BTreeSet<&str> {
    let is_comment = |line: &&str| line.trim_start().starts_with(['*', '/']);
    let words = |line| str::split(line, |c: char| !c.is_ascii_alphanumeric() && c != '_');
    let lines = code.lines().filter(|line| !is_comment(line));
    lines.flat_map(words).filter(|word| word.starts_with("zp_")).collect()
}

/// All that a C program can call, a C++ program can call by its header.
#[test]
fn each_function_of_c_has_its_form() {
    let declared = C_HEADER.lines().filter_map(|line| line.split_once('(')).map(|(line, _)| line);
    let names = declared.filter_map(|line| line.split([' ', '*']).next_back());
    let declared: BTreeSet<_> = names
        .filter(|name| name.starts_with("zp_") && functions(C_HEADER).contains(name))
        .collect();
    assert!(declared.len() > 70, "{declared:?}");
    // The compiler computes the tags.
    let computed = BTreeSet::from(["zp_tag_of_name", "zp_tag_of_plain_data"]);
    let missing: BTreeSet<_> = declared.difference(&functions(HEADER)).copied().collect();
    assert_eq!(missing, computed);
}

/// The example at the top of the header, as it stands there.
#[test]
fn the_example_of_the_header_echoes() {
    with_watchdog(|| {
        let lines = HEADER.lines().filter_map(|line| line.strip_prefix(" *      "));
        let example: Vec<_> =
            lines.skip_while(|line| !line.starts_with("zeroport::port")).collect();
        let end = example.iter().position(|line| line.starts_with("puts")).unwrap();
        let body = example[..=end].join("\n");
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example.cpp");
        let program = format!("#include \"zeroport.hpp\"\nint main() {{\n{body}\nreturn 0;\n}}\n");
        std::fs::write(&source, program).unwrap();

        let mut echo =
            Command::new(build(&[source.to_str().unwrap()], "example-cpp", &["-std=c++17"]));
        echo.stdout(Stdio::piped());
        let (port, child) = zeroport::spawn(echo).unwrap();
        for n in 0..100u32 {
            port.post_bytes(&n.to_le_bytes()).unwrap();
            assert_eq!(port.recv().unwrap().bytes(), n.to_le_bytes());
        }
        port.close();
        assert_eq!(child.wait_with_output().unwrap().stdout, b"the channel was closed\n");
    });
}

/// The example ends by itself, and has checked each pixel.
#[test]
fn the_camera_is_seen() {
    with_watchdog(|| {
        let program = build(&["../examples/c/camera.cpp"], "camera", &["-std=c++17", "-O2"]);
        let text = run(&mut Command::new(program));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].ends_with("in fresh buffers"), "{text}");
        assert!(lines[1].ends_with("in messages, whose memory is used again"), "{text}");
        assert_eq!(lines[2], "camera: the channel was closed; every pixel was checked");
    });
}

/// As in `typed.cpp`.
#[derive(Clone, Copy, Debug, PartialEq, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Reading {
    taken_at: u64,
    values: [i32; 3],
    weight: f32,
}

impl Tagged for Reading {
    const NAME: &'static str = "test.Reading";
}

/// In `typed.cpp` it has one number.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Changed([u32; 2]);

impl Tagged for Changed {
    const NAME: &'static str = "test.Changed";
}

trait Plain: Tagged + NoUninit + AnyBitPattern + PartialEq + std::fmt::Debug {}
impl<T: Tagged + NoUninit + AnyBitPattern + PartialEq + std::fmt::Debug> Plain for T {}

/// One value, and two, come back as `typed.cpp` changes them.
fn comes_back<T: Plain>(port: &MessagePort, value: T, changed: T) {
    port.post_pod(&value).unwrap();
    assert_eq!(port.recv().unwrap().pod::<T>().unwrap(), &changed);
    for count in [0, 2, 1000] {
        port.post_pod_slice(&vec![value; count]).unwrap();
        assert_eq!(port.recv().unwrap().pod_slice::<T>().unwrap(), vec![changed; count]);
    }
}

fn is_refused(port: &MessagePort) {
    let message = port.recv().unwrap();
    assert_eq!(message.bytes(), b"the message is of another type");
}

fn with_typed(name: &'static str, trust: Trust) {
    with_watchdog(move || {
        let program = build(&["tests/typed.cpp"], name, &SANITIZED);
        let mut command = Command::new(program);
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        let (port, mut child) = ChannelOptions::new().trust(trust).spawn(command).unwrap();
        comes_back(&port, -1i8, 0i8);
        comes_back(&port, 1u8, 2u8);
        comes_back(&port, i16::MIN, i16::MIN + 1);
        comes_back(&port, 0xfffeu16, 0xffffu16);
        comes_back(&port, 1i32, 2i32);
        comes_back(&port, 1u32, 2u32);
        comes_back(&port, i64::MIN, i64::MIN + 1);
        comes_back(&port, u64::MAX - 1, u64::MAX);
        comes_back(&port, 0.5f32, 1.5f32);
        comes_back(&port, -0.5f64, 0.5f64);
        comes_back(&port, [1u16, 2, 3], [3u16, 2, 1]);
        let reading = Reading { taken_at: 1, values: [1, -2, 3], weight: 0.5 };
        let changed = Reading { taken_at: 2, values: [-1, 2, -3], weight: 1.0 };
        comes_back(&port, reading, changed);

        // Refused there: another type, none, or other fields under the same name.
        port.post_pod(&[1u16, 2]).unwrap();
        is_refused(&port);
        port.post_bytes(&[0; 4]).unwrap();
        is_refused(&port);
        port.post_pod(&Changed([1, 2])).unwrap();
        is_refused(&port);

        // Refused here.
        port.post_bytes(b"now you").unwrap();
        is_refused(&port);
        assert!(port.recv().unwrap().pod::<Changed>().is_err(), "other fields");
        assert!(port.recv().unwrap().pod::<u32>().is_err(), "an i32");
        assert!(port.recv().unwrap().pod::<i32>().is_err(), "three bytes");
        port.close();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn plain_data_between_rust_and_cpp() {
    with_typed("typed", Trust::Trusted);
}

#[test]
fn plain_data_between_rust_and_a_stranger_in_cpp() {
    with_typed("typed-stranger", Trust::Untrusted);
}
