//! Writes what is generated from the flags and the configuration: man pages, completions, the example file.
//!
//! `cargo run -p oomguard --example generate -- docs`; CI fails if the result differs from what is committed.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use oomguard::cli::Cli;

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args_os().nth(1).ok_or("where to?")?);
    let man = out.join("man");
    fs::create_dir_all(&man)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    let completions = out.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "oomguard", &completions)?;
    }
    fs::write(out.join("oomguard.toml"), oomguard::config::EXAMPLE)?;
    Ok(())
}
