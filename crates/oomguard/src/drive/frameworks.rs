//! What torch, JAX, TensorFlow and the libraries below them are told in a job's environment. What the user has set stays.
//!
//! Asks an interpreter for torch's version; loads no framework.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use oomguard_core::{Amount, Bytes};
use oomguard_sys::gpu::Variables;

use super::gpus::Gpus;

/// Large blocks of torch's cache are not split, so that VRAM is not lost in pieces.
const MAX_SPLIT: &str = "max_split_size_mb:64";
/// A process of torch's gets no more than this share of a GPU.
const FRACTION: &str = "per_process_memory_fraction";

/// What everybody gets: no more threads together than there are cores, and a cache of torch that does not crumble.
/// What the user has set stays.
pub fn shared_env(jobs: u16, cores: u64, env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let threads = (cores / u64::from(jobs)).max(1).to_string();
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"] {
        if jobs > 1 && env(name).is_none() {
            all.insert(name.to_owned(), threads.clone());
        }
    }
    let name = alloc_conf(env);
    all.insert(name.to_owned(), with_setting(env(name).as_deref(), MAX_SPLIT));
    all
}

/// What tells torch, JAX and TensorFlow about a limit, beside what the environment says already.
pub fn framework_env(
    gpus: &Gpus,
    sees: &Variables,
    limit: Option<Amount>,
    torch_obeys: bool,
    says: &dyn Fn(&str) -> Option<String>,
) -> Vec<(OsString, OsString)> {
    // Of a share it does not matter how large the device is.
    let total = match limit {
        Some(Amount::Percent(_)) => Some(Bytes::gib(1024)),
        Some(Amount::Bytes(_)) => gpus.largest(sees),
        None => None,
    };
    let Some((limit, total)) = limit.zip(total) else { return Vec::new() };
    let all = vram_env(limit.of(total).min(total), total, torch_obeys, says);
    all.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

/// What keeps torch, JAX and TensorFlow to a share of a GPU. What the user has set stays.
pub fn vram_env(
    limit: Bytes,
    total: Bytes,
    torch_obeys: bool,
    set: &dyn Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // Rounded down: never more than what was allowed.
    let fraction = (limit.0 as f64 / total.0.max(1) as f64 * 10_000.0).floor().max(1.0) / 10_000.0;
    if torch_obeys {
        let name = alloc_conf(set);
        let setting = format!("{FRACTION}:{fraction}");
        all.insert(name.to_owned(), with_setting(set(name).as_deref(), &setting));
    }
    for (name, value) in [
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", fraction.to_string()),
        // Else it takes all of it at once.
        ("TF_FORCE_GPU_ALLOW_GROWTH", "true".to_owned()),
    ] {
        if set(name).is_none() {
            all.insert(name.to_owned(), value);
        }
    }
    all
}

/// Whether this interpreter's torch knows [`FRACTION`] (2.9 on). Its version is asked for, torch itself is not loaded.
pub fn torch_obeys(python: &Path) -> bool {
    let ask = "import importlib.metadata as m; print(m.version('torch'))";
    let asked =
        std::process::Command::new(python).args(["-c", ask]).stderr(std::process::Stdio::null()).output();
    asked.is_ok_and(|said| knows_fraction(&String::from_utf8_lossy(&said.stdout)))
}

fn knows_fraction(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (2, 9)
}

/// torch reads the new name first.
fn alloc_conf(env: &dyn Fn(&str) -> Option<String>) -> &'static str {
    if env("PYTORCH_ALLOC_CONF").is_some() { "PYTORCH_ALLOC_CONF" } else { "PYTORCH_CUDA_ALLOC_CONF" }
}

/// A list of `key:value` with one more, unless the key is there already.
fn with_setting(list: Option<&str>, setting: &str) -> String {
    let key = setting.split(':').next().unwrap_or_default();
    match list.map(str::trim).filter(|list| !list.is_empty()) {
        None => setting.to_owned(),
        Some(list) if list.split(',').any(|one| one.split(':').next().is_some_and(|it| it.trim() == key)) => {
            list.to_owned()
        }
        Some(list) => format!("{list},{setting}"),
    }
}

/// Whether a program is an interpreter that can be asked for its libraries.
pub fn is_python(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    name.strip_prefix("python").is_some_and(|rest| rest.chars().all(|it| it.is_ascii_digit() || it == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchs_settings_are_merged_with_the_users() {
        assert_eq!(with_setting(None, MAX_SPLIT), MAX_SPLIT);
        let user = "expandable_segments:True";
        assert_eq!(with_setting(Some(user), MAX_SPLIT), "expandable_segments:True,max_split_size_mb:64");
        let set = "max_split_size_mb:512,backend:native";
        assert_eq!(with_setting(Some(set), MAX_SPLIT), set);
    }

    #[test]
    fn frameworks_are_told_their_share_and_the_users_word_stays() {
        let set = |name: &str| match name {
            "PYTORCH_CUDA_ALLOC_CONF" => Some(MAX_SPLIT.to_owned()),
            "XLA_PYTHON_CLIENT_MEM_FRACTION" => Some(".5".to_owned()),
            _ => None,
        };
        let env = vram_env(Bytes::gib(2), Bytes::gib(16), true, &set);
        assert_eq!(env["PYTORCH_CUDA_ALLOC_CONF"], "max_split_size_mb:64,per_process_memory_fraction:0.125");
        assert_eq!(env["TF_FORCE_GPU_ALLOW_GROWTH"], "true");
        assert!(!env.contains_key("XLA_PYTHON_CLIENT_MEM_FRACTION"));
        let old = vram_env(Bytes::gib(1), Bytes::gib(3), false, &|_| None);
        assert!(!old.contains_key("PYTORCH_CUDA_ALLOC_CONF"), "it would not start");
        assert_eq!(old["XLA_PYTHON_CLIENT_MEM_FRACTION"], "0.3333");
        for (version, knows) in [("2.9.0+cu128\n", true), ("2.10.1", true), ("2.8.0", false), ("", false)] {
            assert_eq!(knows_fraction(version), knows, "{version}");
        }
    }

    #[test]
    fn threads_are_shared_among_the_files_and_the_users_number_stays() {
        let env = |name: &str| (name == "OMP_NUM_THREADS").then(|| "3".to_owned());
        let shared = shared_env(4, 16, &env);
        assert_eq!(shared.get("OMP_NUM_THREADS"), None);
        assert_eq!(shared["MKL_NUM_THREADS"], "4");
        assert_eq!(shared_env(32, 16, &env)["MKL_NUM_THREADS"], "1");
        assert!(!shared_env(1, 16, &env).contains_key("MKL_NUM_THREADS"));
    }
}
