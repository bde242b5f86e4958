//! `oomguard run` on a terminal: keys and job control behave as if it were not there.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use support::{PATIENCE, World, end_of, has, lives, pid_in, text, wait_until};

/// A terminal with a shell on it, as a person has it.
struct Terminal {
    master: Option<File>,
    shown: Arc<Mutex<Vec<u8>>>,
    shell: Child,
}

impl Terminal {
    /// `bash -i` in the world, or nothing where there is none.
    fn open(world: &World) -> Option<Terminal> {
        let there = ["/bin/bash", "/usr/bin/setsid"].iter().all(|path| std::path::Path::new(path).exists());
        if !has("tty", there, "no bash or setsid here") {
            return None;
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: 400, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let slave = ptsname(&master, Vec::new()).unwrap();
        let slave = || File::options().read(true).write(true).open(slave.to_str().unwrap()).unwrap();
        // `setsid -c` makes its stdin the terminal of a new session.
        let mut command = world.command("/usr/bin/setsid");
        command.args(["-c", "/bin/bash", "--noprofile", "--norc", "-i"]);
        command.env("PS1", "ready> ").env("TERM", "dumb").env("HISTFILE", "/dev/null");
        command.env("OG", env!("CARGO_BIN_EXE_oomguard")).env("HOG", world.hog());
        let shell = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        drop(command);
        let master = File::from(master);
        let (shown, mut reader) = (Arc::new(Mutex::new(Vec::new())), master.try_clone().unwrap());
        let show = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                show.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let terminal = Terminal { master: Some(master), shown, shell };
        terminal.wait("the prompt", "ready> ");
        Some(terminal)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait(&self, what: &str, text: &str) {
        let end = std::time::Instant::now() + PATIENCE;
        wait_until(PATIENCE * 2, what, || {
            assert!(std::time::Instant::now() < end, "`{text}` was not shown:\n{}", self.shown());
            self.shown().contains(text)
        });
    }

    fn press(&self, keys: &str) {
        self.master.as_ref().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// A command line, and then its exit code, said so that the echo is not taken for it.
    fn type_and_report(&self, line: &str, tag: &str) {
        self.press(&format!("{line}; echo \"{tag}\"'='$?\n"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The state letter in `/proc/PID/stat`.
fn state(pid: u32) -> String {
    let stat = text(std::path::Path::new(&format!("/proc/{pid}/stat")));
    stat.rsplit(") ").next().unwrap_or_default().chars().take(1).collect()
}

const RUN: &str = "$OG run --reserve 256MiB --memory-limit 100MiB --best-effort";

#[test]
fn ctrl_c_reaches_the_command_once_and_the_second_kills() {
    let world = World::new();
    let Some(terminal) = Terminal::open(&world) else { return };
    terminal.type_and_report(&format!("{RUN} -- $HOG deaf heard"), "first");
    wait_until(PATIENCE, "the command listens", || text(&world.path("heard")) == "ready\n");
    terminal.press("\x03");
    wait_until(PATIENCE, "it heard Ctrl-C", || text(&world.path("heard")) == "ready\n2\n");
    terminal.press("\x03");
    wait_until(PATIENCE, "it was killed", || world.processes().len() == 1);
    terminal.type_and_report("echo $?", "first");
    terminal.wait("the code of an interrupt", "first=0");
    assert!(terminal.shown().contains("\n130\r"), "{}", terminal.shown());
    assert!(matches!(text(&world.path("heard")).as_str(), "ready\n2\n" | "ready\n2\n2\n"), "once each");
    // A command that ends at the first is just that, and the shell does not go on with what follows.
    terminal.type_and_report(&format!("{RUN} -- sh -c 'echo up > up-2; exec $HOG hold 1'"), "second");
    wait_until(PATIENCE, "it runs", || world.path("up-2").exists());
    terminal.press("\x03");
    terminal.type_and_report("true", "next");
    terminal.wait("the next command", "next=0");
    assert!(!terminal.shown().contains("second="), "{}", terminal.shown());
    // Programs that mean something else by Ctrl-C may; the code is theirs.
    terminal.type_and_report(
        &format!("{RUN} -- sh -c 'trap \"exit 9\" INT; echo up > up; while :; do sleep 0.05; done'"),
        "third",
    );
    wait_until(PATIENCE, "it listens", || world.path("up").exists());
    terminal.press("\x03");
    terminal.wait("it has ended as it wants", "third=9");
    terminal.press("exit\n");
}

#[test]
fn ctrl_z_stops_and_fg_goes_on() {
    let world = World::new();
    let Some(terminal) = Terminal::open(&world) else { return };
    terminal.type_and_report(
        &format!("{RUN} -- sh -c 'echo $$ > pid; while [ ! -e go ]; do sleep 0.05; done; exit 6'"),
        "stopped",
    );
    let pid = pid_in(&world.path("pid"));
    terminal.press("\x1a");
    terminal.wait("the shell has its terminal back", "Stopped");
    // Or waits for a child that was stopped between vfork and exec.
    wait_until(PATIENCE, "the command stands still", || ["T", "D"].contains(&state(pid).as_str()));
    std::fs::write(world.path("go"), "").unwrap();
    terminal.type_and_report("fg", "done");
    terminal.wait("it went on and ended", "done=6");
    terminal.press("exit\n");
}

#[test]
fn the_command_has_the_terminal() {
    let world = World::new();
    let Some(terminal) = Terminal::open(&world) else { return };
    terminal
        .type_and_report(&format!("{RUN} -- sh -c 'tty; stty size; read line; echo \"got:$line\"'"), "read");
    terminal.wait("its size", "50 400");
    terminal.press("hello\n");
    terminal.wait("what was typed", "got:hello");
    terminal.wait("its end", "read=0");
    assert!(terminal.shown().contains("/dev/pts/"), "{}", terminal.shown());
    // In the background it does not take the terminal.
    terminal.press(&format!("{RUN} -- sh -c 'exit 4' & wait $!; echo 'background'\"=\"$?\n"));
    terminal.wait("its code", "background=4");
    terminal.press("exit\n");
}

#[test]
fn a_terminal_that_goes_away_takes_the_command_along() {
    let world = World::new();
    let Some(mut terminal) = Terminal::open(&world) else { return };
    terminal.press(&format!("{RUN} -- sh -c 'echo $$ > pid; while :; do sleep 0.05; done'\n"));
    let pid = pid_in(&world.path("pid"));
    // The window is closed: the kernel says SIGHUP. The reading thread holds the terminal open, so we say it.
    let shell = terminal.shell.id();
    let hang_up = Command::new("kill").args(["-HUP", &shell.to_string()]).status().unwrap();
    assert!(hang_up.success());
    wait_until(PATIENCE, "the command has gone", || !lives(pid));
    drop(terminal.master.take());
    end_of(&mut terminal.shell);
    wait_until(PATIENCE, "nothing is left", || world.processes().is_empty() && world.cgroups().is_empty());
}
