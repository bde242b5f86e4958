//! Where pytest's rootdir is and which file it takes its settings from.
//!
//! Follows `determine_setup` of pytest 9; only asks the file system what is there.

use std::path::{Component, Path, PathBuf};

use super::options::Options;
use super::settings::{self, NAMES, Settings};
use super::usage;
use crate::error::Error;

/// What was found.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) rootdir: PathBuf,
    pub(super) inifile: Option<PathBuf>,
    pub(super) settings: Settings,
    /// Files beside it that hold settings as well, which do not count.
    pub(super) ignored: Vec<&'static str>,
}

/// `path` from `cwd`, without `.` and `..`; symbolic links are left as they are.
pub(super) fn absolute(cwd: &Path, path: impl AsRef<Path>) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// For the paths that were named (without those of `addopts`, which is not known yet) and these options.
pub(super) fn determine(cwd: &Path, named: &[PathBuf], options: &Options) -> Result<Setup, Error> {
    let dirs: Vec<PathBuf> = named.iter().filter(|path| path.exists()).map(|path| folder(path)).collect();
    let mut setup = match &options.config_file {
        Some(file) => of_file(cwd, absolute(cwd, file), &dirs, options.rootdir.is_some())?,
        None => of_folders(cwd, &dirs, options.rootdir.is_some())?,
    };
    if let Some(rootdir) = &options.rootdir {
        setup.rootdir = absolute(cwd, rootdir);
        if !setup.rootdir.is_dir() {
            let error =
                usage(format!("`--rootdir={rootdir}`: there is no directory `{}`", setup.rootdir.display()));
            return Err(if rootdir.contains('$') {
                error.hint("variables are not looked up here: write the path")
            } else {
                error
            });
        }
    }
    for (key, value) in &options.overrides {
        setup.settings.set(key, value);
    }
    Ok(setup)
}

fn folder(path: &Path) -> PathBuf {
    if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() }
}

fn of_file(cwd: &Path, file: PathBuf, dirs: &[PathBuf], rootdir_is_said: bool) -> Result<Setup, Error> {
    if !file.exists() || file.is_dir() {
        let what = if file.is_dir() { "is a directory" } else { "is not there" };
        return Err(
            usage(format!("pytest's config file `{}` {what}", file.display())).hint("`-c FILE` names it")
        );
    }
    // `/dev/null`: there are to be no settings, and it says nothing about the project.
    if !file.is_file() {
        let root = common_ancestor(cwd, dirs);
        let rootdir = if root.parent().is_none() && !rootdir_is_said { cwd.to_owned() } else { root };
        return Ok(Setup {
            rootdir,
            inifile: Some(file),
            settings: Settings::default(),
            ignored: Vec::new(),
        });
    }
    let settings = settings::read(&file)?.unwrap_or_default();
    Ok(Setup { rootdir: folder(&file), inifile: Some(file), settings, ignored: Vec::new() })
}

fn of_folders(cwd: &Path, dirs: &[PathBuf], rootdir_is_said: bool) -> Result<Setup, Error> {
    let ancestor = common_ancestor(cwd, dirs);
    if let Some(setup) = locate(cwd, std::slice::from_ref(&ancestor))? {
        return Ok(setup);
    }
    let at = |rootdir: &Path| Setup {
        rootdir: rootdir.to_owned(),
        inifile: None,
        settings: Settings::default(),
        ignored: Vec::new(),
    };
    if rootdir_is_said {
        return Ok(at(&ancestor));
    }
    if let Some(root) = ancestor.ancestors().find(|folder| folder.join("setup.py").is_file()) {
        return Ok(at(root));
    }
    if dirs != [ancestor.as_path()]
        && let Some(setup) = locate(cwd, dirs)?
    {
        return Ok(Setup { ignored: Vec::new(), ..setup });
    }
    let both = common_ancestor(cwd, &[cwd.to_owned(), ancestor.clone()]);
    Ok(at(if both.parent().is_none() { &ancestor } else { &both }))
}

/// The first folder from one of `dirs` upwards with a file that counts; a `pyproject.toml` that says nothing counts where
/// nothing else does.
fn locate(cwd: &Path, dirs: &[PathBuf]) -> Result<Option<Setup>, Error> {
    let mut silent = None;
    let here = [cwd.to_owned()];
    for dir in if dirs.is_empty() { &here } else { dirs } {
        for base in dir.ancestors() {
            for (index, name) in NAMES.iter().enumerate() {
                let file = base.join(name);
                if !file.is_file() {
                    continue;
                }
                if *name == "pyproject.toml" && silent.is_none() {
                    silent = Some(file.clone());
                }
                let Some(settings) = settings::read(&file)? else { continue };
                let mut ignored = Vec::new();
                for name in &NAMES[index + 1..] {
                    let other = base.join(name);
                    if other.is_file() && settings::read(&other)?.is_some() {
                        ignored.push(*name);
                    }
                }
                return Ok(Some(Setup { rootdir: base.to_owned(), inifile: Some(file), settings, ignored }));
            }
        }
    }
    Ok(silent.map(|file| Setup {
        rootdir: folder(&file),
        inifile: Some(file),
        settings: Settings::default(),
        ignored: Vec::new(),
    }))
}

/// The deepest folder above all of `paths`; `cwd` where there are none.
fn common_ancestor(cwd: &Path, paths: &[PathBuf]) -> PathBuf {
    let mut paths = paths.iter();
    let Some(first) = paths.next() else { return cwd.to_owned() };
    paths.fold(first.clone(), |common, path| {
        common.ancestors().find(|above| path.starts_with(above)).unwrap_or(cwd).to_owned()
    })
}
