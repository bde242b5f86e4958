//! A badly behaved program for the tests: it takes memory, forks, runs away, listens to signals, and says what it
//! found of itself.
//!
//! Takes real memory and nothing else. Never more than its arguments say.
#![expect(clippy::unwrap_used, reason = "a hog that cannot do what it was told is to fail loudly")]
#![expect(clippy::print_stdout, reason = "the tests read what it says")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, Instant};

use oomguard_core::Instant as Deadline;
use oomguard_sys::wait::{Interest, Poller, Signals};

const MIB: usize = 1 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap();
    match words[..] {
        // Takes so many MiB and waits.
        ["hold", mib] => {
            let _memory = take(number(mib));
            forever();
        }
        // Takes so many MiB as fast as it can and ends.
        ["spike", mib] => drop(take(number(mib))),
        // Grows by so many MiB a second up to so many, and waits there.
        ["grow", rate, most] => grow(number(rate), number(most)),
        // So many children that hold so many MiB each; ends after them, with the code of the last.
        ["forks", count, mib] => forks(number(count), mib),
        // Writes so many MiB into a file.
        ["file", path, mib] => file(Path::new(path), number(mib)),
        // Leaves a grandchild in a session of its own behind, which writes its pid into a file; waits.
        ["escape", path] => {
            escape(path);
            forever();
        }
        // The same, but ends.
        ["leave", path] => escape(path),
        ["child", path] => drop(me(&["grandchild", path]).stdin(Stdio::null()).spawn().unwrap()),
        ["grandchild", path] => {
            rustix::process::setsid().unwrap();
            whole(path, &std::process::id().to_string());
            forever();
        }
        // Writes down every signal that asks it to end, and stays.
        ["deaf", path] => deaf(path),
        // Ends with this code.
        ["exit", code] => exit(code.parse().unwrap()),
        // Numbered lines, as fast as they go; half of them once its log has been turned over.
        ["lines", count] => lines(number(count)),
        // Says this to the guard for ever, as fast as it is heard.
        ["flood", word] => loop {
            say(&[word]);
        },
        // Says this to the guard, a line each, and waits.
        ["say", ref said @ ..] => {
            say(said);
            forever();
        }
        // What arrives on stdin goes to stdout as it is.
        ["cat"] => {
            let mut all = Vec::new();
            std::io::stdin().read_to_end(&mut all).unwrap();
            std::io::stdout().write_all(&all).unwrap();
        }
        _ => {
            eprintln!("unknown: {words:?}");
            exit(2);
        }
    }
}

fn me(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(words);
    command
}

/// Every page is touched, with something else in each.
fn take(mib: usize) -> Vec<u8> {
    let mut memory = vec![0u8; mib * MIB];
    for (number, page) in memory.chunks_mut(4096).enumerate() {
        page[0] = number as u8 | 1;
    }
    std::hint::black_box(memory)
}

fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

fn grow(rate: usize, most: usize) {
    let (begun, mut held) = (Instant::now(), Vec::new());
    while held.len() < most {
        let due = begun.elapsed().as_millis() as usize * rate / 1000;
        while held.len() < due.min(most) {
            held.push(take(1));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    forever();
}

fn forks(count: usize, mib: &str) {
    let mut children: Vec<_> = (0..count).map(|_| me(&["hold", mib]).spawn().unwrap()).collect();
    let mut code = 0;
    for child in &mut children {
        code = child.wait().unwrap().code().unwrap_or(1);
    }
    exit(code);
}

fn file(path: &Path, mib: usize) {
    let mut file = File::create(path).unwrap();
    for _ in 0..mib {
        file.write_all(&[1; MIB]).unwrap();
    }
    drop(file);
    forever();
}

fn escape(path: &str) {
    assert!(me(&["child", path]).status().unwrap().success());
    while !Path::new(path).exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Never seen half written.
fn whole(path: &str, text: &str) {
    let part = format!("{path}.part");
    std::fs::write(&part, text).unwrap();
    std::fs::rename(&part, path).unwrap();
}

fn deaf(path: &str) {
    let mut signals = Signals::block().unwrap();
    let mut heard = OpenOptions::new().create(true).append(true).open(path).unwrap();
    heard.write_all(b"ready\n").unwrap();
    let mut poller = Poller::new();
    loop {
        poller.add(signals.fd(), Interest::Read, 0);
        poller.wait(Deadline::NEVER).unwrap();
        poller.remove(0);
        while let Some(signal) = signals.receive().unwrap() {
            heard.write_all(format!("{}\n", signal.signal).as_bytes()).unwrap();
        }
    }
}

fn lines(count: usize) {
    let mut out = std::io::stdout().lock();
    let worker = std::env::var("OOMGUARD_WORKER").unwrap();
    let moved_aside = std::path::PathBuf::from(format!("logs/worker-{worker}.log.1"));
    for number in 0..count {
        if number == count / 2 {
            let end = Instant::now() + Duration::from_secs(60);
            while !moved_aside.exists() && Instant::now() < end {
                std::thread::yield_now();
            }
        }
        // One write a line, as a program's log does it.
        out.write_all(format!("line {number:08} {}\n", "x".repeat(80)).as_bytes()).unwrap();
    }
    drop(out);
    println!("end of lines");
    forever();
}

fn say(lines: &[&str]) {
    let socket = UnixDatagram::unbound().unwrap();
    let text = lines.join("\n");
    socket.send_to(text.as_bytes(), std::env::var_os("NOTIFY_SOCKET").unwrap()).unwrap();
}
