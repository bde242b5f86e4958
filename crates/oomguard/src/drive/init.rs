//! `oomguard init`: a commented configuration to start from. Never overwrites one.

use std::io::Write;
use std::path::Path;

use crate::cli;
use crate::config::EXAMPLE;
use crate::error::Error;

/// Writes the example.
pub fn init(cli: &cli::Init) -> Result<u8, Error> {
    if cli.file == Path::new("-") {
        crate::say(&EXAMPLE.trim_end());
        return Ok(0);
    }
    let made = std::fs::File::create_new(&cli.file).and_then(|mut file| file.write_all(EXAMPLE.as_bytes()));
    made.map_err(|error| {
        Error::io("write", &cli.file, &error).hint("`oomguard init -` shows the example without writing it")
    })?;
    crate::say(&format!("wrote `{}`; put your command into it, then `oomguard up`", cli.file.display()));
    Ok(0)
}
