//! A delegated cgroup for people without privileges: our own command line again, in a scope of the user's systemd.
//!
//! Touches the environment and looks for `systemd-run` and the user manager's socket. Never starts anything itself.

use std::ffi::OsString;
use std::path::Path;

/// Set inside the scope, so that a scope that does not help is not tried again.
pub const LOOP_GUARD: &str = "OOMGUARD_IN_SCOPE";

/// The command line to exec in place of `argv` in order to get a delegated cgroup; `None` if we are in one already,
/// or if there is no `systemd-run` or no user manager that answers.
pub fn scope_command(argv: &[OsString]) -> Option<Vec<OsString>> {
    scope_command_in(argv, &|key| std::env::var_os(key))
}

/// The same with another environment.
pub fn scope_command_in(argv: &[OsString], env: &dyn Fn(&str) -> Option<OsString>) -> Option<Vec<OsString>> {
    if argv.is_empty() || env(LOOP_GUARD).is_some_and(|value| !value.is_empty()) {
        return None;
    }
    let manager = Path::new(&env("XDG_RUNTIME_DIR")?).join("systemd/private");
    if !manager.exists() {
        return None;
    }
    let path = env("PATH")?;
    // A relative folder in `PATH` is whatever one has just walked into.
    let folders = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    let program = folders.map(|dir| dir.join("systemd-run")).find(|file| is_program(file))?;
    let words = ["--user", "--scope", "--quiet", "-p", "Delegate=yes"];
    let mut command = vec![program.into_os_string()];
    command.extend(words.iter().map(OsString::from));
    // The scope gets the environment of `systemd-run` itself, so this is enough to break the loop.
    command.push(OsString::from(format!("--setenv={LOOP_GUARD}=1")));
    command.push(OsString::from("--"));
    command.extend_from_slice(argv);
    Some(command)
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("run/systemd")).unwrap();
        std::fs::write(dir.path().join("run/systemd/private"), "").unwrap();
        let program = dir.path().join("systemd-run");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        dir
    }

    fn ask(root: &Path, without: &str, looped: bool) -> Option<Vec<OsString>> {
        let argv = ["oomguard".into(), "run".into(), "--".into(), "a b".into()];
        scope_command_in(&argv, &|key| match key {
            key if key == without => None,
            "XDG_RUNTIME_DIR" => Some(root.join("run").into()),
            "PATH" => Some(root.into()),
            LOOP_GUARD => looped.then(|| "1".into()),
            _ => None,
        })
    }

    #[test]
    fn it_is_our_command_line_in_a_scope() {
        let machine = machine();
        let command = ask(machine.path(), "", false).unwrap();
        let shown: Vec<_> = command.iter().map(|w| w.to_string_lossy().into_owned()).collect();
        assert_eq!(
            shown[1..].join("|"),
            "--user|--scope|--quiet|-p|Delegate=yes|--setenv=OOMGUARD_IN_SCOPE=1|--|oomguard|run|--|a b"
        );
    }

    #[test]
    fn a_program_in_the_working_directory_is_not_run() {
        let machine = machine();
        // The same file, by a way that starts where we are.
        let up = "../".repeat(std::env::current_dir().unwrap().components().count());
        let relative = Path::new(&up).join(machine.path().strip_prefix("/").unwrap());
        assert!(is_program(&relative.join("systemd-run")));
        let argv = ["oomguard".into()];
        let command = scope_command_in(&argv, &|key| match key {
            "XDG_RUNTIME_DIR" => Some(machine.path().join("run").into()),
            "PATH" => Some(relative.clone().into()),
            _ => None,
        });
        assert_eq!(command, None);
    }

    #[test]
    fn it_is_not_tried_where_it_cannot_work_or_twice() {
        let machine = machine();
        assert_eq!(ask(machine.path(), "PATH", false), None);
        assert_eq!(ask(machine.path(), "XDG_RUNTIME_DIR", false), None);
        assert_eq!(ask(machine.path(), "", true), None);
        std::fs::remove_file(machine.path().join("run/systemd/private")).unwrap();
        assert_eq!(ask(machine.path(), "", false), None);
    }
}
