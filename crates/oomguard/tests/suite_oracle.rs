//! Discovery beside pytest itself: random trees, settings and arguments, and the same files in the same order.
//!
//! `SUITE_CASES` says how many trees (40), `SUITE_SEED` with which they start.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::print_stdout, reason = "a skipped test says why, and this one how much it saw")]

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oomguard::suite::{Request, discover};

const FOLDERS: [&str; 14] = [
    "a",
    "tests",
    "unit",
    "Zed",
    "build",
    "dist",
    ".hidden",
    "node_modules",
    "venv",
    "x.egg",
    "__pycache__",
    "{arch}",
    "CVS",
    "b c",
];
/// No `__main__.py`: whoever imports that gets the program that runs.
const FILES: [&str; 14] = [
    "test_a.py",
    "test_b.py",
    "b_test.py",
    "test_t.txt",
    "check_c.py",
    "__init__.py",
    "conftest.py",
    "Test_d.py",
    "notes.txt",
    "doc.rst",
    "setup.py",
    "test_é.py",
    "test_.py",
    "pyvenv.cfg",
];
const PYTHON: &str = "# setuptools\ndef test_f():\n    '''\n    >>> 1\n    1\n    '''\n";

/// Deterministic: the same seed, the same tree (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

#[derive(serde::Serialize)]
struct Case {
    cwd: PathBuf,
    args: Vec<String>,
    options: Vec<String>,
    addopts: String,
    /// What the tree is like, for a person who reads of a difference.
    settings: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Answer {
    code: i32,
    files: Vec<PathBuf>,
    /// Collected as well, without a test in it.
    empty: Vec<PathBuf>,
    rootdir: Option<PathBuf>,
    inifile: Option<PathBuf>,
}

fn plant(dice: &mut Dice, folder: &Path, depth: usize) {
    fs::create_dir_all(folder).unwrap();
    for _ in 0..dice.roll(5) {
        let name = dice.pick(&FILES);
        let text = match *name {
            "pyvenv.cfg" => "",
            "setup.py" if dice.one_in(2) => PYTHON.trim_start_matches("# setuptools\n"),
            name if name.ends_with("py") => PYTHON,
            _ => ">>> 1\n1\n",
        };
        fs::write(folder.join(name), text).unwrap();
    }
    if depth < 3 {
        for _ in 0..dice.roll(4) {
            let name = *dice.pick(&FOLDERS);
            plant(dice, &folder.join(name), depth + 1);
        }
    }
    if dice.one_in(8) {
        let _ = std::os::unix::fs::symlink("test_a.py", folder.join("test_link.py"));
    }
    if dice.one_in(20) {
        fs::create_dir_all(folder.join("conda-meta")).unwrap();
        fs::write(folder.join("conda-meta/history"), "").unwrap();
    }
}

/// All paths below `folder`, from it; folders too.
fn paths(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in next.read_dir().unwrap().flatten() {
            all.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

/// Settings as `key = value` of ini files; values are words.
fn settings(dice: &mut Dice, folders: &[String]) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    let mut set = |key: &'static str, value: &str| settings.push((key, value.to_owned()));
    if dice.one_in(3) {
        set(
            "python_files",
            dice.pick::<&str>(&[
                "check_*.py",
                "test_*.py *_test.py check_*.py",
                "unit/*.py",
                "*.py",
                "tests/**/test_?.py",
            ]),
        );
    }
    if dice.one_in(4) {
        set("norecursedirs", dice.pick::<&str>(&["a", "tests/unit build", "[a-u]*", "*/a"]));
    }
    if dice.one_in(3) {
        let folder = if folders.is_empty() { "nowhere".to_owned() } else { dice.pick(folders).clone() };
        let quoted = format!("'{folder}'");
        set(
            "testpaths",
            dice.pick::<&str>(&[quoted.as_str(), "tests a", "*", "**/unit nowhere", "t*s", "**/test_a.py"]),
        );
    }
    if dice.one_in(4) {
        set(
            "addopts",
            dice.pick::<&str>(&[
                "-ra --strict-markers",
                "--doctest-modules",
                "-p no:doctest",
                "--ignore=a -q",
                "-o python_files=check_*.py",
                "tests",
            ]),
        );
    }
    settings
}

fn write_settings(dice: &mut Dice, folder: &Path, settings: &[(&str, String)]) -> String {
    let ini = |start: &str| {
        let line =
            |(key, value): &(&str, String)| format!("{key} =\n    {}\n# x\n", value.replace(' ', "\n    "));
        // A word in quotes must stay in one line.
        let plain = |(key, value): &(&str, String)| format!("{key} : {value}\n");
        let text: String =
            settings.iter().map(|one| if one.1.contains('\'') { plain(one) } else { line(one) }).collect();
        format!("[other]\nz=1\n[{start}]\n{text}")
    };
    let toml = |start: &str, lists: bool| {
        let value = |value: &str| match lists {
            true => format!("{:?}", value.split(' ').map(|word| word.trim_matches('\'')).collect::<Vec<_>>()),
            false => format!("{value:?}"),
        };
        let lines: String = settings.iter().map(|(key, text)| format!("{key} = {}\n", value(text))).collect();
        format!("[{start}]\n{lines}")
    };
    let (name, text) = match dice.roll(10) {
        0 => ("pytest.toml", toml("pytest", true)),
        1 => (".pytest.toml", toml("pytest", true)),
        2 | 3 => ("pytest.ini", ini("pytest")),
        4 => (".pytest.ini", ini("pytest")),
        5 => ("pyproject.toml", toml("tool.pytest.ini_options", dice.one_in(2))),
        6 => ("pyproject.toml", toml("tool.pytest", true)),
        7 => ("tox.ini", ini("pytest")),
        8 => ("setup.cfg", ini("tool:pytest")),
        _ => ("pyproject.toml", "[project]\nname = 'x'\n".to_owned()),
    };
    fs::write(folder.join(name), &text).unwrap();
    format!("{}: {text}", folder.join(name).display())
}

fn case(dice: &mut Dice, root: &Path) -> Case {
    plant(dice, root, 0);
    let all = paths(root);
    let folders: Vec<String> = all.iter().filter(|path| root.join(path).is_dir()).cloned().collect();
    let simple: Vec<String> = folders.iter().filter(|path| !path.contains(' ')).cloned().collect();
    let mut said = Vec::new();
    for _ in 0..dice.roll(3) {
        let settings = settings(dice, &simple);
        let folder = if dice.one_in(3) && !folders.is_empty() {
            root.join(dice.pick(&folders))
        } else {
            root.to_owned()
        };
        said.push(write_settings(dice, &folder, &settings));
    }
    let cwd =
        if dice.one_in(4) && !folders.is_empty() { root.join(dice.pick(&folders)) } else { root.to_owned() };
    let from = |path: &str| match root.join(path).strip_prefix(&cwd) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.to_str().unwrap().to_owned(),
        Err(_) => root.join(path).to_str().unwrap().to_owned(),
    };
    let mut args = Vec::new();
    if dice.one_in(2) && !all.is_empty() {
        for _ in 0..=dice.roll(3) {
            let path = from(dice.pick::<String>(&all));
            let test = path.ends_with("_a.py") && dice.one_in(3);
            args.push(if test { format!("{path}::test_f") } else { path });
        }
        if dice.one_in(20) {
            args.push("not_there.py".to_owned());
        }
    }
    let mut options: Vec<String> = Vec::new();
    let anywhere = |dice: &mut Dice| if all.is_empty() { "x".to_owned() } else { dice.pick(&all).clone() };
    for _ in 0..dice.roll(3) {
        let path = anywhere(dice);
        match dice.roll(9) {
            0 => options.push(format!("--ignore={}", from(&path))),
            1 => options.extend([
                "--ignore-glob".to_owned(),
                dice.pick(&["*/unit/*", "tests*", "*_a.py"]).to_string(),
            ]),
            2 => options.push(format!("--deselect={path}")),
            3 => options.push("-opython_files=check_*.py".to_owned()),
            4 => options.push("--doctest-modules".to_owned()),
            5 => options.push("--collect-in-virtualenv".to_owned()),
            6 => options.push("--doctest-glob=*.rst".to_owned()),
            7 => options.push(format!("--rootdir={}", root.parent().unwrap().display())),
            _ => options.push("--keep-duplicates".to_owned()),
        }
    }
    let addopts = if dice.one_in(6) { "--ignore=tests -o 'norecursedirs=unit a'" } else { "" };
    Case { cwd, args, options, addopts: addopts.to_owned(), settings: said }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn the_files_are_those_that_pytest_collects() {
    let python = std::env::var("OOMGUARD_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let version = "import pytest, sys; sys.exit(pytest.version_tuple < (9, 1))";
    let there =
        Command::new(&python).args(["-c", version]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !support::has(
        "pytest",
        there,
        "no pytest 9.1 or later in `python3` (OOMGUARD_TEST_PYTHON names another one)",
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Above the trees nothing counts as a project.
    let base = dir.path().canonicalize().unwrap();
    let seed = number("SUITE_SEED", 1);
    let cases: Vec<Case> = (seed..seed + number("SUITE_CASES", 40))
        .map(|seed| {
            case(&mut Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1), &base.join(format!("{seed}/p")))
        })
        .collect();
    let oracle = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/oracle.py");
    let mut asked = Command::new(&python)
        .arg("-B")
        .arg(oracle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .env_remove("PYTEST_PLUGINS")
        .spawn()
        .unwrap();
    asked.stdin.take().unwrap().write_all(&serde_json::to_vec(&cases).unwrap()).unwrap();
    let output = asked.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<Answer> = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    let mut collected = 0;
    for (case, answer) in cases.iter().zip(&answers) {
        let request = Request {
            cwd: case.cwd.clone(),
            args: case.args.iter().map(Into::into).collect(),
            pytest_args: case.options.clone(),
            addopts: Some(case.addopts.clone()),
        };
        let shown = serde_json::to_string_pretty(case).unwrap();
        match discover(&request) {
            Ok(suite) => {
                let files: Vec<PathBuf> =
                    suite.files.iter().map(|file| suite.rootdir.join(&file.path)).collect();
                collected += files.len();
                // 2: a file that cannot be imported; 5: no file with a test in it.
                let (empty, full): (Vec<_>, Vec<_>) =
                    files.iter().cloned().partition(|file| answer.empty.contains(file));
                if ![0, 2, 5].contains(&answer.code)
                    || full != answer.files
                    || empty.len() != answer.empty.len()
                    || Some(&suite.rootdir) != answer.rootdir.as_ref()
                    || suite.inifile != answer.inifile
                {
                    wrong.push(format!(
                        "{shown}\npytest: {} {:?} {:?} {:#?} {:#?}\nours: {:?} {:?} {:#?}",
                        answer.code,
                        answer.rootdir,
                        answer.inifile,
                        answer.files,
                        answer.empty,
                        suite.rootdir,
                        suite.inifile,
                        files
                    ));
                }
            }
            Err(error) if i32::from(error.code) == answer.code => {}
            Err(error) => {
                wrong.push(format!("{shown}\npytest: {} {:#?}\nours: {error}", answer.code, answer.files))
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ; the first:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n\n")
    );
    assert!(collected > cases.len(), "{collected} files in {} trees show little", cases.len());
    println!("{} trees, {collected} files", cases.len());
}
