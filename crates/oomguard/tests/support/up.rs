//! A running `oomguard up`, read through what it writes.

use std::process::{Child, Stdio};
use std::time::Duration;

use oomguard_sys::process::{Process, Signal};
use serde_json::Value;

use super::{Done, PATIENCE, World, json_lines, text, wait_for, wait_until};

/// The guard of a world.
pub struct Up<'w> {
    pub world: &'w World,
    pub child: Child,
}

/// Writes the configuration. `{hog}` stands for the hog, `{dir}` for the project folder.
pub fn configure(world: &World, config: &str) {
    let config = config.replace("{hog}", &world.hog()).replace("{dir}", world.project().to_str().unwrap());
    // Whole: the guard may be reading.
    std::fs::write(world.path("new.toml"), config).unwrap();
    std::fs::rename(world.path("new.toml"), world.path("oomguard.toml")).unwrap();
}

/// A small reserve, so that the tests ask for no more than they need.
pub const MEMORY: &str = "[memory]\nreserve = \"256MiB\"\nwarning = \"300MiB\"\n";

impl<'w> Up<'w> {
    /// Starts it, and waits until it is armed.
    pub fn start(world: &'w World, config: &str) -> Up<'w> {
        configure(world, &format!("{MEMORY}{config}"));
        Up::again(world)
    }

    /// Starts one with the configuration that is there.
    pub fn again(world: &'w World) -> Up<'w> {
        let armed = |events: &[Value]| events.iter().filter(|event| event["event"] == "armed").count();
        let before = armed(&events(world));
        let errors = std::fs::File::create(world.path("up.stderr")).unwrap();
        let mut command = world.oomguard(["up"]);
        let mut child = command.stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        wait_until(PATIENCE, "the guard is armed", || {
            // One with nothing to guard may be armed and over between two looks.
            let ended = child.try_wait().unwrap();
            let is_armed = armed(&events(world)) > before;
            let early = ended.is_some() && !is_armed;
            assert!(!early, "up has ended with {ended:?}: {}", text(&world.path("up.stderr")));
            is_armed
        });
        Up { world, child }
    }

    /// All that has been told in this project.
    pub fn events(&self) -> Vec<Value> {
        events(self.world)
    }

    /// `deaths.jsonl` of this project's state directory.
    pub fn deaths(&self) -> Vec<Value> {
        let states = std::fs::read_dir(self.world.state().join("oomguard")).unwrap();
        states.flat_map(|dir| json_lines(&text(&dir.unwrap().path().join("deaths.jsonl")))).collect()
    }

    /// Waits for an event.
    pub fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.wait_nth(what, 0, is)
    }

    /// Waits for the one after `skip` of them.
    pub fn wait_nth(&self, what: &str, skip: usize, is: impl Fn(&Value) -> bool) -> Value {
        let told = || format!("{what}\n{}", text(&self.world.path("logs/watchdog.log")));
        let end = std::time::Instant::now() + PATIENCE;
        wait_for(PATIENCE + Duration::from_secs(5), what, || {
            assert!(std::time::Instant::now() < end, "waited in vain for: {}", told());
            self.events().into_iter().filter(|event| is(event)).nth(skip)
        })
    }

    /// Waits until this worker was started so many times; its pid.
    pub fn wait_start(&self, worker: &str, attempt: u64) -> u32 {
        let what = format!("{worker} is started for the {attempt}. time");
        let event = self.wait(&what, |e| {
            e["event"] == "started"
                && e["worker"] == worker
                && e["attempt"] == attempt
                && e["adopted"] == false
        });
        u32::try_from(event["pid"].as_u64().unwrap()).unwrap()
    }

    /// A verb of the same project, to its end.
    pub fn ask(&self, words: &[&str]) -> Done {
        self.world.done(&mut self.world.oomguard(words.iter().copied()))
    }

    /// `status --json`.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ask(&["status", "--json"]).with(0).out).unwrap()
    }

    /// One worker of it.
    pub fn worker(&self, name: &str) -> Value {
        let status = self.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().find(|worker| worker["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// Sends the guard a signal.
    pub fn signal(&self, signal: Signal) {
        Process::open(self.child.id()).unwrap().signal(signal).unwrap();
    }

    /// Its exit code, once it has ended.
    pub fn end(mut self) -> Option<i32> {
        super::end_of(&mut self.child).code()
    }

    /// Ends it as people do, and whatever must be true then is.
    pub fn stop(self) -> Option<i32> {
        self.ask(&["stop"]).with(0);
        let world = self.world;
        let code = self.end();
        world.must_be_empty();
        code
    }

    /// SIGKILL, as the kernel or a person may send it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `logs/events.jsonl` of a project; every whole line must be JSON.
pub fn events(world: &World) -> Vec<Value> {
    let text = text(&world.path("logs/events.jsonl"));
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    json_lines(whole)
}
