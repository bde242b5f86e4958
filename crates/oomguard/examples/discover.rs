//! `discover [--cwd DIR] [PATH...] [-- PYTEST_ARGS...]`: prints what `oomguard test` would find, as one JSON object; an error
//! goes to stderr, with its exit code.

use std::process::ExitCode;

use oomguard::suite::{Request, discover, preload};

fn main() -> ExitCode {
    let mut request = Request {
        cwd: std::env::current_dir().unwrap_or_default(),
        addopts: std::env::var("PYTEST_ADDOPTS").ok(),
        ..Request::default()
    };
    let mut words = std::env::args_os().skip(1);
    while let Some(word) = words.next() {
        if word == "--cwd" {
            request.cwd = words.next().unwrap_or_default().into();
        } else if word == "--" {
            request.pytest_args = words.by_ref().map(|word| word.to_string_lossy().into_owned()).collect();
        } else {
            request.args.push(word);
        }
    }
    match discover(&request) {
        Ok(suite) => {
            let file = |file: &oomguard::suite::TestFile| {
                serde_json::json!({
                    "path": file.path, "select": file.select, "size": file.size, "gpu": file.gpu,
                    "imports": file.imports.module, "late_imports": file.imports.function,
                    "memory": file.marks.memory.map(|size| size.0), "vram": file.marks.vram.map(|size| size.0),
                    "serial": file.marks.serial,
                })
            };
            let found = serde_json::json!({
                "rootdir": suite.rootdir, "inifile": suite.inifile, "notes": suite.notes,
                "preload": preload(&suite.files, &suite.roots),
                "files": suite.files.iter().map(file).collect::<Vec<_>>(),
            });
            anstream::println!("{found}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            anstream::eprintln!("{error}");
            error.exit_code()
        }
    }
}
