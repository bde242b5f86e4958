//! `oomguard install`: `watch` as a systemd service. Shows the unit and where it would go; writes it when told to.
//!
//! Touches that one file. Never starts or enables anything, and never replaces a unit that somebody else wrote.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use oomguard_sys::folder::{self, Folder};

use crate::cli;
use crate::error::{Error, in_words};
use crate::sink::human::harmless;

/// No unit is longer.
const LARGEST: u64 = 1 << 20;
/// By this line a unit of ours is known.
const OURS: &str = "# Written by `oomguard install`; `systemctl edit` adds to it without being overwritten.";

/// Shows the unit, or writes it.
pub fn install(cli: &cli::Install) -> Result<u8, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("find", Path::new("oomguard's own program"), &error))?;
    let words = [&["oomguard".into(), "watch".into()], cli.flags.as_slice()].concat();
    let record = match cli::Cli::try_parse_from(&words) {
        Ok(cli::Cli { verb: cli::Verb::Watch(watch) }) => watch.record,
        Ok(_) => None,
        Err(error) => {
            return Err(Error::new(format!(
                "`oomguard watch` would not start\n{}",
                error.render().to_string().trim_end()
            )));
        }
    };
    let written = record.as_deref().map(folder_of).transpose()?;
    let path = place(cli.user, &|name| std::env::var_os(name))?;
    let text = unit(cli.user, &program, &cli.flags, written)?;
    let manager = if cli.user { "systemctl --user" } else { "systemctl" };
    let is_safe = if cli.user { Ok(()) } else { check_program(&program) };
    if !cli.yes {
        crate::say(&text.trim_end());
        crate::complain(&format!("oomguard: would write this to `{}`; --yes does", path.display()));
        if let Err(error) = is_safe {
            crate::complain(&format!("oomguard: --yes would refuse: {}", harmless(&error.message)));
        }
        return Ok(0);
    }
    is_safe?;
    write(&path, &text)?;
    crate::say(&format!("wrote `{}`", path.display()));
    crate::say(&format!("next: {manager} daemon-reload && {manager} enable --now oomguard-watch"));
    Ok(0)
}

fn place(user: bool, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, Error> {
    if !user {
        return Ok(PathBuf::from("/etc/systemd/system/oomguard-watch.service"));
    }
    let absolute = |name| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    let config = config.ok_or_else(|| Error::new("neither `XDG_CONFIG_HOME` nor `HOME` names a folder"))?;
    Ok(config.join("systemd/user/oomguard-watch.service"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let there = std::fs::symlink_metadata(path);
    let is_ours = || folder::read(path, LARGEST).is_ok_and(|old| old.starts_with(OURS.as_bytes()));
    if let Ok(there) = there
        && !(there.is_file() && is_ours())
    {
        return Err(Error::new(format!("`{}` was not written by oomguard", path.display()))
            .hint("move it away; without --yes the unit is only shown"));
    }
    let failed = |error| {
        let error = Error::io("write", path, &error);
        if path.starts_with("/etc") { error.hint("`--system` needs root; `--user` does not") } else { error }
    };
    let written = folder::parts(path)
        .and_then(|(dir, name)| Folder::make(dir, 0o755)?.replace(name, text.as_bytes(), 0o644));
    written.map_err(failed)
}

/// What root's manager starts at every boot must not be anybody's to change.
fn check_program(program: &Path) -> Result<(), Error> {
    folder::is_safe(program).map_err(|error| {
        let shown = program.display();
        Error::new(format!("`{shown}` must not run as a service of root: {}", in_words(&error)))
            .hint("install oomguard where only root can write (`/usr/local`), and run that one")
    })
}

/// Where `--record` writes. A service has no folder to start from.
fn folder_of(record: &Path) -> Result<&Path, Error> {
    record.parent().filter(|folder| folder.is_absolute()).ok_or_else(|| {
        Error::new(format!("`--record {}` is nowhere for a service", record.display()))
            .hint("write the whole path: `--record /var/log/oomguard.jsonl`")
    })
}

/// `written`: the one folder that it has to write to.
fn unit(user: bool, program: &Path, flags: &[OsString], written: Option<&Path>) -> Result<String, Error> {
    let words =
        [program.as_os_str(), OsStr::new("watch")].into_iter().chain(flags.iter().map(OsString::as_os_str));
    let command = words.map(quoted).collect::<Result<Vec<_>, _>>()?.join(" ");
    // A user's manager may not lower the score of what it starts.
    // ... nor has it the right to give it a file system of its own.
    let (system, target) = match user {
        true => ("", "default.target"),
        false => (
            "OOMScoreAdjust=-900\nProtectSystem=strict\nProtectHome=read-only\nRestrictAddressFamilies=AF_UNIX\n",
            "multi-user.target",
        ),
    };
    let writes = match written.filter(|_| !user) {
        Some(folder) => format!("ReadWritePaths={}\n", quoted(folder.as_os_str())?),
        None => String::new(),
    };
    Ok(format!(
        "{OURS}
[Unit]
Description=oomguard: ends the right processes before memory runs out
Documentation=man:oomguard-watch(1)

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
WatchdogSec=30
Delegate=yes
OOMPolicy=continue
NoNewPrivileges=yes
{system}{writes}
[Install]
WantedBy={target}
"
    ))
}

/// One word of `ExecStart=`: in quotes, with what systemd would expand written out.
fn quoted(word: &OsStr) -> Result<String, Error> {
    let text = std::str::from_utf8(word.as_bytes()).ok().filter(|text| !text.chars().any(char::is_control));
    let Some(text) = text else {
        return Err(Error::new(format!(
            "`{}` cannot be written into a unit",
            word.to_string_lossy().escape_debug()
        )));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_/.:=+,@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_word_is_expanded() {
        for (word, written) in [
            ("--enforce", "--enforce"),
            ("name:a b", "\"name:a b\""),
            ("50%", "\"50%%\""),
            ("cgroup:*/ci-$X\"\\", "\"cgroup:*/ci-$$X\\\"\\\\\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(OsStr::new(word)).unwrap(), written);
        }
        let error = quoted(OsStr::new("a\nExecStart=/bin/evil")).unwrap_err();
        assert!(error.message.contains("cannot be written into a unit"), "{error}");
    }

    #[test]
    fn a_user_has_a_folder_or_an_error() {
        let with = |name: &str, value: &str| {
            let (name, value) = (name.to_owned(), OsString::from(value));
            place(true, &move |asked| (asked == name).then(|| value.clone()))
        };
        let end = "systemd/user/oomguard-watch.service";
        assert_eq!(with("XDG_CONFIG_HOME", "/c").unwrap(), Path::new("/c").join(end));
        assert_eq!(with("HOME", "/h").unwrap(), Path::new("/h/.config").join(end));
        assert!(with("HOME", "relative").is_err());
    }

    #[test]
    fn what_somebody_else_wrote_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/unit.service");
        let text = unit(false, Path::new("/usr/bin/oomguard"), &[], None).unwrap();
        write(&path, &text).unwrap();
        write(&path, &text).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        std::fs::write(&path, "[Service]\n").unwrap();
        assert!(write(&path, &text).unwrap_err().message.contains("was not written by oomguard"));
        let link = dir.path().join("link.service");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(write(&link, &text).is_err(), "a link is somebody's");
        assert!(!dir.path().join("elsewhere").exists());
    }
}
