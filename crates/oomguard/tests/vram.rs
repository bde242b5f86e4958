//! VRAM in `check`, `doctor` and `test`: the real program, the real loader, and a library that says what the test wants.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Done, World, has};

const GIB: u64 = 1 << 30;

/// A machine with NVIDIA's library.
struct Machine {
    world: World,
}

impl Machine {
    fn new(script: &Value) -> Machine {
        let world = World::new();
        world.gpus(script);
        Machine { world }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        self.world.oomguard(words.iter().copied())
    }

    fn oomguard(&self, words: &[&str]) -> Done {
        self.world.done(&mut self.command(words))
    }

    /// A suite of programs that are test files by name: what a Python runs, without pytest.
    fn suite(&self, files: &[(&str, &str)]) {
        std::fs::create_dir(self.path("suite")).unwrap();
        std::fs::write(self.path("suite/pytest.ini"), "[pytest]\n").unwrap();
        std::fs::write(self.path("suite/gpu.py"), GPU).unwrap();
        for (name, text) in files {
            std::fs::write(self.path("suite").join(name), text).unwrap();
        }
    }

    /// Runs it; gives what came of it, and each file by its name.
    fn test(&self, words: &[&str]) -> (Done, Value) {
        let fixed =
            ["test", "--ram-preflight", "100%", "--ram-target", "100%", "--command", "python3 {file}"];
        let report = ["--report", "../report.json"];
        let mut command = self.command(&[&fixed[..], &report, words].concat());
        command.current_dir(self.path("suite")).env("DRIVER", self.world.driver());
        command.env_remove("XLA_PYTHON_CLIENT_MEM_FRACTION").env_remove("TF_FORCE_GPU_ALLOW_GROWTH");
        let done = self.world.done(&mut command);
        let report = std::fs::read(self.path("report.json")).unwrap_or_default();
        (done, serde_json::from_slice(&report).unwrap_or_default())
    }
}

fn file<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["files"].as_array().unwrap();
    all.iter().find(|file| file["path"].as_str().unwrap().ends_with(name)).unwrap()
}

fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    has("python", found, "there is no `python3`")
}

/// One card of 100 GiB, of which so much is used by this process.
fn card(used: u64) -> Value {
    let own = std::process::id();
    json!({"driver": "550.54.15", "devices": [
        {"uuid": "GPU-aa", "name": "NVIDIA H200", "total": 100 * GIB, "used": used * GIB,
         "compute": [{"pid": own, "used": used * GIB}]},
        {"uuid": "GPU-bb", "name": "NVIDIA H200", "total": 100 * GIB, "used": GIB},
    ]})
}

/// What a file of tests does with a GPU: `hold` says to the driver what this process holds, and comes back when the guard
/// has seen it.
const GPU: &str = r#"
import json, os, pathlib, time

DRIVER = pathlib.Path(os.environ["DRIVER"])

def asked():
    try:
        return int((DRIVER / "questions").read_text())
    except (OSError, ValueError):
        return -1

def hold(gib, pids=None):
    pids = [os.getpid()] if pids is None else pids
    card = {"uuid": "GPU-aa", "name": "NVIDIA H200", "total": 100 << 30, "used": gib << 30}
    card["compute"] = [{"pid": pid, "used": gib << 30} for pid in pids]
    new = DRIVER / f"new-{os.getpid()}"
    new.write_text(json.dumps({"driver": "550.54.15", "devices": [card]}))
    new.rename(DRIVER / "fake-nvml.json")
    before, end = asked(), time.monotonic() + 15
    while asked() < before + 2:
        assert time.monotonic() < end, "nobody looks"
        time.sleep(0.005)

def test_uses_it():
    import torch.cuda  # What makes this a file for a GPU. Nobody calls it.
"#;

/// The same in each file, because imports are not followed.
const USES: &str = "def test_uses_it():\n    import torch.cuda\nfrom gpu import hold\n";

/// A file for a GPU whose start can be seen.
const BEGINS: &str = "def test_uses_it():\n    import torch.cuda\nopen('b-has-begun', 'w').close()\n";

#[test]
fn check_refuses_what_is_fuller_than_asked_for_and_says_who_holds_it() {
    let machine = Machine::new(&card(81));
    let refused = machine.oomguard(&["check", "--max-ram", "100%", "--max-vram", "80%"]);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    assert!(refused.err.contains("VRAM 81.0% used on GPU 0 (NVIDIA H200), more than 80%"), "{refused:?}");
    assert!(refused.err.contains(&format!("(pid {}, 81 GiB)", std::process::id())), "{refused:?}");
    let fits = machine.oomguard(&["check", "--max-ram", "100%", "--max-vram", "81%", "--json"]);
    assert_eq!(fits.code, Some(0), "{fits:?}");
    let answer: Value = serde_json::from_str(&fits.out).unwrap();
    assert_eq!((&answer["vram_used_percent"], &answer["max_vram_percent"]), (&json!(81.0), &json!(81)));
}

#[test]
fn check_judges_by_the_devices_that_may_be_used() {
    let machine = Machine::new(&card(81));
    let words = ["check", "--max-ram", "100%", "--max-vram", "80%"];
    for (visible, code) in [("0", 75), ("1", 0), ("GPU-bb", 0), ("1,0", 75), ("-1", 0), ("1,7,0", 0), ("", 0)]
    {
        let done = machine.world.done(machine.command(&words).env("CUDA_VISIBLE_DEVICES", visible));
        assert_eq!(done.code, Some(code), "CUDA_VISIBLE_DEVICES={visible}: {done:?}");
    }
}

#[test]
fn check_refuses_where_a_driver_does_not_answer_and_says_why() {
    for (script, why) in [
        (json!({"init": 18}), "of different versions"),
        (json!({"devices": [{"total": GIB, "memory": 15}]}), "is lost"),
        (json!({"devices": [{"total": GIB}], "hang": "memory"}), "has not answered in time"),
    ] {
        let done = Machine::new(&script).oomguard(&["check", "--max-ram", "100%", "--max-vram", "80%"]);
        assert_eq!(done.code, Some(75), "{done:?}");
        assert!(done.err.contains(why), "{done:?}");
    }
}

#[test]
fn nobody_who_does_not_ask_loads_a_driver_or_has_a_thread_for_it() {
    // It would never come back.
    let machine = Machine::new(&json!({"hang": "init"}));
    assert_eq!(machine.oomguard(&["check", "--max-ram", "100%"]).code, Some(0));
    let look = "cat /proc/$PPID/maps; cat /proc/$PPID/task/*/comm";
    let done = machine.oomguard(&["run", "--", "sh", "-c", look]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("oomguard") && !done.out.contains("nvidia"), "{}", done.out);
    assert!(!done.out.contains("oomguard-gpu"), "{}", done.out);
}

#[test]
fn doctor_names_devices_and_those_who_hold_them() {
    let machine = Machine::new(&card(81));
    let said = machine.oomguard(&["doctor"]).out;
    assert!(said.contains("✓ NVML: driver 550.54.15"), "{said}");
    assert!(said.contains("✓ GPU 0 (NVIDIA H200): 81 GiB of 100 GiB used; held by "), "{said}");
    let hidden = Machine::new(&json!({"driver": "1", "devices": [{"total": 100 * GIB, "used": 30 * GIB}]}));
    let said = hidden.oomguard(&["doctor"]).out;
    assert!(said.contains("✗ GPU 0, processes: not shown to us"), "{said}");
    assert!(said.contains("--pid=host"), "{said}");
    let broken = Machine::new(&json!({"init": 18})).oomguard(&["doctor"]).out;
    assert!(broken.contains("✗ NVML: driver and library are of different versions"), "{broken}");
}

#[test]
fn a_suite_that_uses_a_gpu_does_not_begin_on_a_full_one_and_others_do() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(81));
    machine.suite(&[("test_gpu.py", USES), ("test_cpu.py", "def test_it(): pass\n")]);
    let (done, _) = machine.test(&[]);
    assert_eq!(done.code, Some(75), "{done:?}");
    assert!(done.err.contains("VRAM 81.0% used on GPU 0"), "{done:?}");
    assert_eq!(machine.test(&["test_cpu.py"]).0.code, Some(0));
    assert_eq!(machine.test(&["--vram-preflight", "81%"]).0.code, Some(0));
}

#[test]
fn what_a_file_held_is_known_by_its_processes_and_written_down() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    let holds = format!("{USES}hold(30)\nhold(20)\nhold(0, [])\n");
    // The process of somebody else counts for what is used, and not for the file.
    let other = format!("{USES}hold(40, [{}])\nhold(0, [])\n", std::process::id());
    machine.suite(&[("test_a.py", &holds), ("test_b.py", &other)]);
    let (done, report) = machine.test(&["--memory-profile", "../profile.log"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(file(&report, "test_a.py")["peak_vram"], 30 * GIB);
    assert_eq!(file(&report, "test_b.py")["peak_vram"], 0);
    let profile = std::fs::read_to_string(machine.path("profile.log")).unwrap();
    let first = profile.lines().next().unwrap();
    assert!(first.contains("BEFORE | Test: test_a.py") && first.contains("| VRAM: 1.0% |"), "{profile}");
    assert!(!profile.contains("VRAM: unknown"), "{profile}");
}

#[test]
fn the_next_gpu_file_waits_until_the_vram_of_the_last_one_has_come_back() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    // It ends, and the driver still shows it; a file without a GPU, which may run beside, has the driver let go.
    let stuck = format!("{USES}hold(30)\nopen('a-has-ended', 'w').close()\n");
    let lets_go = "import os, time\nfrom gpu import hold\nend = time.monotonic() + 15\n\
                   while not os.path.exists('a-has-ended'): assert time.monotonic() < end; time.sleep(0.005)\n\
                   time.sleep(0.3)\nassert not os.path.exists('b-has-begun')\n\
                   open('let-go', 'w').close()\nhold(0, [])\n";
    let next =
        format!("{USES}import os\nopen('b-has-begun', 'w').close()\nassert os.path.exists('let-go')\n");
    machine.suite(&[("test_a.py", &stuck), ("test_b.py", &next), ("test_c.py", lets_go)]);
    let (done, _) = machine.test(&["-n", "2"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(machine.path("suite/b-has-begun").exists());
}

#[test]
fn a_gpu_that_the_dead_hold_is_waited_for_only_so_long_and_not_used_again() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    let cpu = "def test_it(): pass\n";
    machine.suite(&[("test_a.py", &format!("{USES}hold(30)\n")), ("test_b.py", BEGINS), ("test_c.py", cpu)]);
    let begin = Instant::now();
    let (done, report) = machine.test(&["--wait", "1s", "-v"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    assert!(begin.elapsed() > Duration::from_secs(2));
    let said = format!("{}{}", done.out, done.err);
    assert!(said.contains("the VRAM of test_a.py has not come back after 1s"), "{said}");
    assert!(said.contains("what test_a.py held is still held: process "), "{said}");
    assert!(!machine.path("suite/b-has-begun").exists());
    assert_eq!(file(&report, "test_c.py")["verdict"], "passed", "who uses no GPU is not kept from running");
}

#[test]
fn a_gpu_that_stays_full_ends_the_suite_after_the_wait() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    let own = std::process::id();
    machine.suite(&[("test_a.py", &format!("{USES}hold(95, [{own}])\n")), ("test_b.py", BEGINS)]);
    let (done, report) = machine.test(&["--wait", "1s"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    assert_eq!(file(&report, "test_a.py")["verdict"], "passed");
    assert!(!machine.path("suite/b-has-begun").exists());
    assert!(format!("{}{}", done.out, done.err).contains("VRAM 95.0% used"), "{done:?}");
}

#[test]
fn a_driver_that_hangs_in_the_middle_delays_nobody_but_those_who_need_it() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    let hangs = format!(
        "{USES}import os, pathlib\nscript = pathlib.Path(os.environ['DRIVER'], 'fake-nvml.json')\n\
         script.write_text('{{\"hang\": \"memory\", \"devices\": [{{}}]}}')\n"
    );
    machine.suite(&[("test_a.py", &hangs), ("test_b.py", BEGINS), ("test_c.py", "def test_it(): pass\n")]);
    let (done, report) = machine.test(&["--wait", "4s", "-v"]);
    assert_eq!(done.code, Some(75), "{done:?}");
    let said = format!("{}{}", done.out, done.err);
    assert_eq!(
        said.matches("VRAM is not known any more: the driver has not answered in time").count(),
        1,
        "{said}"
    );
    assert_eq!(file(&report, "test_c.py")["verdict"], "passed");
    assert!(!machine.path("suite/b-has-begun").exists());
}

#[test]
fn frameworks_are_told_what_share_is_theirs() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    let asks = format!(
        "{USES}import os\nassert os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'] == '0.25', os.environ\n\
         assert os.environ['TF_FORCE_GPU_ALLOW_GROWTH'] == 'true'\n"
    );
    let cpu = "import os\nassert 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in os.environ\n";
    machine.suite(&[("test_a.py", &asks), ("test_b.py", cpu)]);
    let (done, _) = machine.test(&["--vram-limit", "25GiB"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(machine.test(&["--vram-limit", "25%"]).0.code, Some(0));
}

#[test]
fn without_a_gpu_its_files_are_files_like_any_other() {
    if !has_python() {
        return;
    }
    let machine = Machine::new(&card(0));
    // Each waits for the other: they must run at the same time.
    let meets = |own: &str, other: &str| {
        format!(
            "{USES}import os, time\nopen('{own}', 'w').close()\nend = time.monotonic() + 15\n\
             while not os.path.exists('{other}'): assert time.monotonic() < end; time.sleep(0.005)\n"
        )
    };
    machine.suite(&[("test_a.py", &meets("a", "b")), ("test_b.py", &meets("b", "a"))]);
    let fixed =
        ["test", "--ram-preflight", "100%", "--ram-target", "100%", "-n", "2", "--memory-limit", "64MiB"];
    let mut command = machine.command(&[&fixed[..], &["--command", "python3 {file}"]].concat());
    command.current_dir(machine.path("suite")).env("DRIVER", machine.world.driver());
    let done = machine.world.done(command.env("CUDA_VISIBLE_DEVICES", ""));
    assert_eq!(done.code, Some(0), "{done:?}");
}
