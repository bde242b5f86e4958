//! `oomguard doctor`: what this machine can enforce and see, each with the proof that was tried and the remedy.
//!
//! Tries everything for real, once, and undoes it. Changes nothing that outlives it.

use oomguard_core::{Bytes, Enforcement, HostPolicy, HostSample, Reading, Why};
use serde::Serialize;

use super::{Place, Sensors, prepare, sensors, vram};
use crate::cli;
use crate::error::Error;

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Finding {
    topic: &'static str,
    what: String,
    ok: bool,
    /// What was seen, or why not.
    proof: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// The whole examination.
#[derive(Debug, Serialize)]
struct Diagnosis {
    schema: u32,
    enforcement: Enforcement,
    parent: Option<String>,
    available: Bytes,
    total: Bytes,
    reserve: Bytes,
    warning: Bytes,
    promise: String,
    findings: Vec<Finding>,
}

/// Shows it on stdout. Exits with 0 where a kernel holds whole jobs, with 1 where the guard only watches.
pub fn doctor(cli: &cli::Doctor) -> Result<u8, Error> {
    let mut sensors = Sensors::open()?;
    let host = sensors.machine();
    let place = Place::find(cli.place.cgroup_parent.as_deref());
    let policy = HostPolicy::for_machine(host.total, sensors::cores());
    let diagnosis = Diagnosis {
        schema: 1,
        enforcement: place.enforcement,
        parent: place.path(),
        available: host.available,
        total: host.total,
        reserve: policy.reserve,
        warning: policy.warning,
        promise: promise(place.enforcement, &policy),
        findings: findings(&place, &host, &sensors),
    };
    if cli.json {
        crate::say(&serde_json::json!(diagnosis));
    } else {
        crate::say(&render(&diagnosis));
    }
    if let Some(parent) = place.parent {
        let _ = parent.remove();
    }
    Ok(u8::from(!diagnosis.enforcement.holds_the_tree()))
}

/// What may honestly be promised here.
fn promise(enforcement: Enforcement, policy: &HostPolicy) -> String {
    if enforcement.holds_the_tree() {
        return format!(
            "the kernel stops every job at its own limit, and all of them together before the last {}; the guard \
             acts from {} on",
            Bytes(policy.reserve.0 / 2),
            policy.reserve
        );
    }
    let seconds = policy.reserve.0 as f64 / policy.worst_rate.0 as f64;
    format!(
        "no kernel limit holds a whole job: the guard looks in time and survives growth of up to {}/s for \
         {seconds:.2} s (reserve / rate)",
        policy.worst_rate
    )
}

fn findings(place: &Place, host: &HostSample, sensors: &Sensors) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |topic, what: &str, ok: bool, proof: String, remedy: Option<&str>| {
        let remedy = remedy.filter(|_| !ok).map(str::to_owned);
        findings.push(Finding { topic, what: what.to_owned(), ok, proof, remedy });
    };
    let remedy = "run as root, or in a login session with a user systemd (`loginctl enable-linger`), or give \
                  `--cgroup-parent` a cgroup that you may write";
    let proof =
        place.refusal.clone().or_else(|| place.path().map(|p| format!("made, limited, read back: {p}")));
    add("enforcement", "cgroup", place.parent.is_some(), proof.unwrap_or_default(), Some(remedy));
    for note in &place.notes {
        add("enforcement", "note", true, note.clone(), None);
    }
    add("sensors", "MemAvailable", true, format!("{} of {}", host.available, host.total), None);
    let pressure = sensors.pressure();
    let proof = pressure.map_or_else(|why| format!("{why:?}"), |()| "readable".to_owned());
    add(
        "sensors",
        "pressure (PSI)",
        pressure.is_ok(),
        proof,
        Some("boot with `psi=1`; only thrashing goes unnoticed without"),
    );
    for step in prepare::prepare() {
        let proof = step.refused.clone().unwrap_or_else(|| step.gives.to_owned());
        add("privileges", step.what, step.refused.is_none(), proof, Some(step.needs));
    }
    gpus(&mut add);
    findings
}

/// Which GPUs there are, what their drivers say, and who holds them.
fn gpus(add: &mut impl FnMut(&'static str, &str, bool, String, Option<&str>)) {
    let mut gpu = match vram::watch() {
        Ok(gpu) => gpu,
        Err(error) => return add("gpus", "watch", false, error.to_string(), None),
    };
    let sample = match vram::first(&mut gpu) {
        Reading::Known(sample) => sample,
        Reading::Unknown(why) => {
            return add("gpus", "driver", false, why.to_string(), Some(vram::remedy(why)));
        }
    };
    if sample.has_none() {
        return add("gpus", "none", true, "no NVIDIA driver, no AMD or Intel card".to_owned(), None);
    }
    for driver in &sample.drivers {
        match &driver.says {
            Ok(version) if version.is_empty() => {}
            Ok(version) => add("gpus", driver.name, true, format!("driver {version}"), None),
            // Another one knows.
            Err((Why::NoDriver, _)) => {}
            Err((why, text)) => {
                add("gpus", driver.name, false, format!("{why} ({text})"), Some(vram::remedy(*why)));
            }
        }
    }
    for (place, device) in sample.devices.iter().enumerate() {
        let what = vram::name(device);
        let mut proof = match device.memory {
            Reading::Known(memory) => format!("{} of {} used", memory.used, memory.total),
            Reading::Unknown(why) => {
                add("gpus", &what, false, why.to_string(), Some(vram::remedy(why)));
                continue;
            }
        };
        if device.divided {
            proof.push_str(", divided into instances");
        } else if !sample.visible.contains(&place) {
            proof.push_str(", hidden from us by its vendor's `*_VISIBLE_DEVICES`");
        }
        let holders = vram::holders(device);
        if !holders.is_empty() {
            proof.push_str(&format!("; held by {}", holders.join(", ")));
        }
        add("gpus", &what, true, proof, None);
        let hidden = device.holders.as_ref().err().copied();
        let hidden = hidden.or_else(|| device.hides_holders().then_some(Why::NoPermission));
        if let Some(why) = hidden {
            let what = format!("{what}, processes");
            add("gpus", &what, false, why.to_string(), Some(vram::remedy(why)));
        }
    }
}

fn render(diagnosis: &Diagnosis) -> String {
    let mut text = format!(
        "enforcement  {}{}\nmemory       {} available of {}, reserve {}, warning at {}\n",
        diagnosis.enforcement.name(),
        diagnosis.parent.as_ref().map_or_else(String::new, |path| format!(" under {path}")),
        diagnosis.available,
        diagnosis.total,
        diagnosis.reserve,
        diagnosis.warning,
    );
    let mut topic = "";
    for finding in &diagnosis.findings {
        if finding.topic != topic {
            topic = finding.topic;
            text.push_str(&format!("\n{topic}\n"));
        }
        let mark = if finding.ok { "✓" } else { "✗" };
        text.push_str(&format!("  {mark} {}: {}\n", finding.what, finding.proof.replace('\n', "\n      ")));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("      remedy: {remedy}\n"));
        }
    }
    text.push_str(&format!("\npromise: {}", diagnosis.promise));
    text
}
