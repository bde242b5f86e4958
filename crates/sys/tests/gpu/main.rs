//! What GPUs hold, by the real readers: NVIDIA's library and program played by fakes, the kernel's files by folders.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails in a test should end it where it fails")]

mod nvml;
mod smi;
mod sysfs;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use oomguard_core::{Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{Gpu, Places, Sample};
use serde_json::Value;

/// More than anything here takes, on any machine.
const SOON: Duration = Duration::from_secs(20);

/// A machine: what its drivers say, and nothing of the real one.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// Without any GPU, driver or program.
    fn new() -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for name in ["sys/class/drm", "proc"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        Machine { dir }
    }

    /// With NVIDIA's library, which says what the script says.
    fn with_nvml(script: &Value) -> Machine {
        let machine = Machine::new();
        // Cargo builds it for us, because it is one of our dependencies.
        let built = std::env::current_exe().unwrap().with_file_name("libfake_nvml.so");
        std::fs::copy(&built, machine.path("libnvidia-ml.so.1")).unwrap();
        machine.say(script);
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// From now on the library says this.
    fn say(&self, script: &Value) {
        let new = self.path("new.json");
        std::fs::write(&new, script.to_string()).unwrap();
        std::fs::rename(new, self.path("fake-nvml.json")).unwrap();
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(Path::new(to), path).unwrap();
    }

    fn places(&self) -> Places {
        Places {
            nvml: self.path("libnvidia-ml.so.1"),
            smi: self.path("nvidia-smi"),
            sys: self.path("sys"),
            proc: self.path("proc"),
            ..Places::default()
        }
    }

    fn gpu(&self) -> Gpu {
        Gpu::watch(self.places()).unwrap()
    }

    /// What is read now.
    fn read(&self) -> Sample {
        sample(&mut self.gpu())
    }
}

fn sample(gpu: &mut Gpu) -> Sample {
    match gpu.read_now(clock::now().after(SOON)) {
        Reading::Known(sample) => sample.clone(),
        Reading::Unknown(why) => panic!("not read: {why}"),
    }
}

/// Why the first device's memory is not known.
fn why(sample: &Sample) -> Option<Why> {
    sample.devices[0].memory.why()
}

const GIB: u64 = 1 << 30;
