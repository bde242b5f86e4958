//! Discovery on a project of its own: what is found, what is selected, what is said where something is wrong.
//!
//! `suite_oracle` holds the rules against pytest itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use oomguard::error::Error;
use oomguard::suite::{Request, Suite, discover, preload};

struct Project {
    dir: tempfile::TempDir,
    request: Request,
}

impl Project {
    /// Files by path, each with its text.
    fn new(files: &[(&str, &str)]) -> Project {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path().canonicalize().unwrap();
        for (path, text) in files {
            let path = cwd.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Project { dir, request: Request { cwd, ..Request::default() } }
    }

    fn find(&self, args: &[&str], options: &[&str]) -> Result<Suite, Error> {
        let mut request = self.request.clone();
        request.args = args.iter().map(Into::into).collect();
        request.pytest_args = options.iter().map(|&word| word.to_owned()).collect();
        discover(&request)
    }

    fn names(&self, args: &[&str], options: &[&str]) -> Vec<String> {
        let suite = self.find(args, options).unwrap();
        suite.files.iter().map(|file| file.path.to_str().unwrap().to_owned()).collect()
    }

    fn error(&self, args: &[&str], options: &[&str]) -> (u8, String) {
        let error = self.find(args, options).unwrap_err();
        (error.code, error.to_string())
    }
}

const INI: (&str, &str) = ("pytest.ini", "[pytest]\ntestpaths = tests\n");

#[test]
fn files_come_in_the_order_of_their_names_with_folders_among_them() {
    let project = Project::new(&[
        INI,
        ("tests/test_b.py", ""),
        ("tests/a/test_z.py", ""),
        ("tests/test_c/test_a.py", ""),
        ("tests/test_a.txt", ""),
        ("tests/z_test.py", ""),
        ("tests/build/test_never.py", ""),
        ("tests/.venv/test_never.py", ""),
        ("tests/env/pyvenv.cfg", ""),
        ("tests/env/test_never.py", ""),
        ("other/test_other.py", ""),
    ]);
    let want = [
        "tests/a/test_z.py",
        "tests/test_a.txt",
        "tests/test_b.py",
        "tests/test_c/test_a.py",
        "tests/z_test.py",
    ];
    assert_eq!(project.names(&[], &[]), want);
    assert_eq!(project.names(&["other", "tests/a"], &[]), ["other/test_other.py", "tests/a/test_z.py"]);
    assert_eq!(project.names(&["tests/build/test_never.py"], &[]), ["tests/build/test_never.py"]);
    assert_eq!(project.names(&[], &["--deselect=tests/test_", "--ignore", "tests/a"]), ["tests/z_test.py"]);
    assert_eq!(
        project.names(&["tests"], &["-pno:doctest", "-o", "python_files=test_b*"]),
        ["tests/test_b.py"]
    );
}

#[test]
fn what_was_named_in_a_file_is_kept_with_it() {
    let project = Project::new(&[("test_a.py", ""), ("test_b.py", ""), ("test_c.py", "")]);
    let args =
        ["test_b.py::TestX::test_y[a::b]", "test_a.py", "test_b.py::test_z", "test_a.py::test_dropped"];
    let suite = project.find(&args, &[]).unwrap();
    let found: Vec<(&Path, &[String])> =
        suite.files.iter().map(|file| (file.path.as_path(), file.select.as_slice())).collect();
    let selected = ["TestX::test_y[a::b]".to_owned(), "test_z".to_owned()];
    assert_eq!(found, [(Path::new("test_b.py"), &selected[..]), (Path::new("test_a.py"), &[])]);
    assert_eq!(suite.rootdir, project.request.cwd);
}

#[test]
fn addopts_count_wherever_they_stand() {
    let project = Project::new(&[
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\naddopts = '--ignore=tests/b -o python_files=check_*.py tests'\n",
        ),
        ("tests/b/check_b.py", ""),
        ("tests/check_a.py", ""),
        ("tests/check_c.py", ""),
    ]);
    let mut request = project.request.clone();
    request.addopts = Some("--ignore 'tests/check_c.py'".to_owned());
    let suite = discover(&request).unwrap();
    assert_eq!(suite.files.len(), 1);
    assert_eq!(suite.files[0].path, Path::new("tests/check_a.py"));
    assert!(suite.notes[0].contains("`addopts` names `tests`"), "{:?}", suite.notes);
}

#[test]
fn files_outside_of_rootdir_keep_their_whole_path() {
    let project = Project::new(&[("a/pytest.ini", ""), ("b/test_b.py", "import mine\n"), ("b/mine.py", "")]);
    let suite = project.find(&["b"], &["--rootdir=a"]).unwrap();
    assert_eq!(suite.files[0].path, project.request.cwd.join("b/test_b.py"));
    assert_eq!(preload(&suite.files, &suite.roots), [""; 0], "a module beside the test is the project's own");
}

#[test]
fn what_is_the_projects_own_is_not_preloaded() {
    let project = Project::new(&[
        ("pytest.ini", "[pytest]\npythonpath = lib\n"),
        ("src/mine/__init__.py", ""),
        ("lib/helper.py", ""),
        (
            "tests/unit/test_a.py",
            "import os, numpy.linalg, mine.deep, helper, beside\nfrom sklearn import datasets\n",
        ),
        ("tests/unit/beside.py", ""),
        ("tests/unit/test_b.py", "import numpy\n"),
    ]);
    let suite = project.find(&[], &[]).unwrap();
    assert_eq!(preload(&suite.files, &suite.roots), ["numpy", "numpy.linalg", "sklearn", "sklearn.datasets"]);
}

#[test]
fn a_link_that_leads_back_is_left_out_and_said() {
    let project = Project::new(&[("tests/test_a.py", "")]);
    std::os::unix::fs::symlink("..", project.request.cwd.join("tests/loop")).unwrap();
    std::os::unix::fs::symlink("nowhere", project.request.cwd.join("tests/test_dangling.py")).unwrap();
    let suite = project.find(&[], &[]).unwrap();
    assert_eq!(
        suite.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
        [&PathBuf::from("tests/test_a.py")]
    );
    assert!(suite.notes[0].contains("leads back"), "{:?}", suite.notes);
}

#[test]
fn errors_have_the_exit_codes_of_pytest_and_a_way_out() {
    let project = Project::new(&[INI, ("tests/test_a.py", ""), ("data.bin", ""), ("empty/x.py", "")]);
    for (args, options, code, says) in [
        (&["nowhere"][..], &[][..], 4, "no file or directory `nowhere`"),
        (&["tests::test_a"], &[], 4, "a directory cannot be followed by `::`"),
        (&["tests/test_a[1].py"], &[], 4, "a path cannot contain `[`"),
        (&["data.bin"], &[], 4, "pytest finds no tests in a file like"),
        (&["empty"], &[], 5, "`python_files` here: `test_*.py`, `*_test.py`"),
        (&[], &["--pyargs"], 4, "name its directory"),
        (&[], &["-c", "none.ini"], 4, "is not there"),
        (&[], &["--rootdir=$HOME/x"], 4, "variables are not looked up here"),
        (&[], &["-o", "x"], 4, "`-o KEY=VALUE`"),
        (&[], &["-o", "python_files='x"], 4, "no closing '"),
    ] {
        let (found, text) = project.error(args, options);
        assert!(found == code && text.contains(says), "{args:?} {options:?}: {found}: {text}");
    }
    fs::write(project.request.cwd.join("pytest.ini"), "[pytest]\nwhat\n").unwrap();
    let (code, text) = project.error(&[], &[]);
    assert!(code == 4 && text.contains("pytest.ini` line 2: `what` is neither"), "{text}");
    assert!(project.dir.path().exists());
}

#[test]
fn settings_beside_the_ones_that_count_are_said() {
    let project = Project::new(&[
        INI,
        ("tox.ini", "[pytest]\n"),
        ("setup.cfg", "[metadata]\n"),
        ("tests/test_a.py", ""),
    ]);
    let suite = project.find(&[], &[]).unwrap();
    assert_eq!(suite.inifile, Some(project.request.cwd.join("pytest.ini")));
    assert_eq!(suite.notes.len(), 1);
    assert!(suite.notes[0].ends_with("not from `tox.ini`"), "{:?}", suite.notes);
}
