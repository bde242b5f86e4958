//! `oomguard check`: pre-flight alone. Is there room?

use oomguard_core::Bytes;
use serde_json::json;

use super::Sensors;
use super::vram::{self, Vram};
use crate::cli;
use crate::error::{Error, REFUSED};

/// Answers on stdout; gives the exit code.
pub fn check(cli: &cli::Check) -> Result<u8, Error> {
    let host = Sensors::open()?.machine();
    let used = host.total.minus(host.available);
    let percent = 100.0 * used.0 as f64 / host.total.0.max(1) as f64;
    let wanted = cli.min_available.map_or(Bytes::ZERO, |amount| amount.of(host.total));
    let mut problems = Vec::new();
    if percent > f64::from(cli.max_ram) {
        problems.push(format!("RAM {percent:.1}% used, more than {}%", cli.max_ram));
    }
    if host.available < wanted {
        problems.push(format!("{} available, less than {wanted}", host.available));
    }
    let vram = match cli.max_vram {
        None => Vram::None,
        Some(most) => {
            let vram = vram::vram(vram::first(&mut vram::watch()?));
            problems.extend(vram.problem(most));
            vram
        }
    };
    let ok = problems.is_empty();
    if cli.json {
        crate::say(&json!({
            "schema": 1, "ok": ok, "ram_used_percent": percent, "max_ram_percent": cli.max_ram,
            "available": host.available, "min_available": wanted, "total": host.total,
            "vram_used_percent": vram.percent(), "max_vram_percent": cli.max_vram, "problems": problems,
        }));
    } else if ok {
        let vram = match (cli.max_vram, &vram) {
            (None, _) => String::new(),
            (Some(_), Vram::None) => "; no GPU".to_owned(),
            (Some(_), Vram::Unknown(why)) => format!("; VRAM {why}"),
            (Some(_), Vram::Used { percent, .. }) => format!("; VRAM {percent:.1}% used"),
        };
        let (available, total) = (host.available, host.total);
        crate::say(&format!("ok: RAM {percent:.1}% used, {available} of {total} available{vram}"));
    } else {
        crate::complain(&format!("oomguard: no room: {}", problems.join("; ")));
    }
    Ok(if ok { 0 } else { REFUSED })
}
