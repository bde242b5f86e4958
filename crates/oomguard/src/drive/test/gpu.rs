//! The GPUs of a run: how full they are, what each file holds, and whether that came back when it had ended.
//!
//! Looks at what the watcher has seen; never waits for a driver. What it says is said once.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use oomguard_core::{Bytes, Instant, Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{Gpu, Sample};

use super::super::vram::{self, Vram};

/// For so long it is waited at most for the VRAM of a file that has ended.
const COMES_BACK: Duration = Duration::from_secs(10);
/// What may be missing of it: the driver's own for a device that has been used once.
const SLACK: Bytes = Bytes::mib(64);
/// While files wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What one file has to do with GPUs.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The most that its tree held; `None`: nothing is known of it.
    pub peak: Option<Bytes>,
    /// Its processes, as the driver numbers them.
    pids: Vec<u32>,
    /// In use on all visible devices when it began.
    before: Option<Bytes>,
}

/// A file has ended and its VRAM is awaited.
#[derive(Debug)]
struct Owed {
    name: String,
    since: Instant,
    held: Held,
}

/// The GPUs.
pub struct Gpus {
    gpu: Gpu,
    owed: Vec<Owed>,
    /// They were waited for, in vain, and the driver says that they still hold some: no device that is used again.
    stuck: Vec<Owed>,
    /// For so long.
    comes_back: Duration,
    /// What has been said about not knowing.
    said: Option<Why>,
    look_at: Instant,
}

/// Whether a file that uses a GPU may start.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// It may; `room` is what all of them together may use of one device, where that is known.
    Open {
        /// Free, on the device that has least.
        room: Option<Bytes>,
    },
    /// What ended before has not given back what it held.
    Awaits,
    /// Too much is used, or nothing can be known: why.
    Full(String),
}

impl Gpus {
    /// Those that this process may use; `None`: it has none. Waits for the first answer. `wait`: for what is to
    /// come back.
    pub fn find(wait: Duration) -> Result<Option<Gpus>, crate::error::Error> {
        let mut gpu = vram::watch()?;
        let none = vram::vram(vram::first(&mut gpu)) == Vram::None;
        let comes_back = wait.min(COMES_BACK);
        let (owed, stuck, said, look_at) = (Vec::new(), Vec::new(), None, Instant::NEVER);
        Ok((!none).then_some(Gpus { gpu, owed, stuck, comes_back, said, look_at }))
    }

    /// Readable when there is something new.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.gpu.fd()
    }

    /// What was last seen.
    pub fn latest(&mut self) -> Reading<&Sample> {
        self.gpu.latest(clock::now())
    }

    /// How full the fullest is, in percent.
    pub fn percent(&mut self) -> Option<f64> {
        vram::percent(self.latest())
    }

    /// How full the fullest is, with names.
    pub fn vram(&mut self) -> Vram {
        vram::vram(self.latest())
    }

    /// The memory of the smallest visible device.
    pub fn total(&mut self) -> Option<Bytes> {
        let sample = self.latest().known()?;
        let total = |place: &usize| sample.devices[*place].memory.known().map(|memory| memory.total);
        sample.visible.iter().filter_map(total).min()
    }

    /// Something new was said; what is to be told about it, once.
    pub fn hear(&mut self) -> Option<String> {
        self.gpu.hear();
        self.complaint()
    }

    /// Why nothing is known any more, if that has not been said.
    pub fn complaint(&mut self) -> Option<String> {
        let why = match self.vram() {
            Vram::Unknown(why) => Some(why),
            Vram::None => Some(Why::NoDriver),
            Vram::Used { .. } => None,
        };
        if std::mem::replace(&mut self.said, why) == why {
            return None;
        }
        Some(match why {
            Some(why) => format!("VRAM is not known any more: {why}; {}", vram::remedy(why)),
            None => "VRAM is known again".to_owned(),
        })
    }

    /// A file begins.
    pub fn begins(&mut self) -> Held {
        Held { before: used(self.latest()), ..Held::default() }
    }

    /// Books what a file's processes hold now.
    pub fn book(&mut self, held: &mut Held, mut is_its: impl FnMut(u32) -> bool) {
        let Reading::Known(sample) = self.latest() else { return };
        let mut all = Some(Bytes::ZERO);
        for place in &sample.visible {
            let device = &sample.devices[*place];
            let mut its = |pid: u32| {
                let its = is_its(pid);
                if its && !held.pids.contains(&pid) {
                    held.pids.push(pid);
                }
                its
            };
            all = match (all, device.used_by(&mut its)) {
                (Some(sum), Reading::Known(used)) => Some(sum.plus(used)),
                _ => None,
            };
        }
        held.peak = held.peak.max(all);
    }

    /// A file has ended: its VRAM is owed.
    pub fn ended(&mut self, name: &str, held: &Held) {
        self.gpu.ask();
        let now = clock::now();
        self.owed.push(Owed { name: name.to_owned(), since: now, held: held.clone() });
        self.look_at = now.after(LOOK_AGAIN);
    }

    /// Takes from the list whose VRAM has come back, and who has been waited for long enough; what is to be said of them.
    pub fn settle(&mut self, now: Instant) -> Vec<String> {
        let mut texts = Vec::new();
        let alone = self.owed.len() == 1;
        let owed = std::mem::take(&mut self.owed);
        for debt in owed {
            let missing = match self.latest() {
                Reading::Known(sample) if sample.at >= debt.since => debt.missing(sample, alone),
                Reading::Known(_) => Some("the driver has not been heard since".to_owned()),
                Reading::Unknown(why) => Some(why.to_string()),
            };
            let Some(missing) = missing else { continue };
            if now.since(debt.since) < self.comes_back {
                self.owed.push(debt);
                continue;
            }
            let waited = self.comes_back;
            texts.push(format!("the VRAM of {} has not come back after {waited:?}: {missing}", debt.name));
            self.stuck.push(debt);
        }
        if let Reading::Known(sample) = self.gpu.latest(now) {
            self.stuck.retain(|debt| debt.held_by(sample).is_some());
        }
        self.look_at = Instant::NEVER;
        if !self.owed.is_empty() {
            self.gpu.ask();
            self.look_at = now.after(LOOK_AGAIN);
        }
        texts
    }

    /// Whether a file that uses a GPU may start while no more than `most` percent are to be in use. `running`: others
    /// do, and what is in use may be theirs.
    pub fn gate(&mut self, most: u8, running: bool) -> Gate {
        if !self.owed.is_empty() {
            return Gate::Awaits;
        }
        if let Reading::Known(sample) = self.gpu.latest(clock::now())
            && let Some((stuck, holders)) = self.stuck.iter().find_map(|it| Some((it, it.held_by(sample)?)))
        {
            return Gate::Full(format!("what {} held is still held: {holders}", stuck.name));
        }
        match self.vram() {
            // What cannot be known on this machine keeps nobody waiting; a driver that has failed does.
            Vram::Unknown(why @ (Why::NoAnswer | Why::Lost)) => {
                Gate::Full(format!("VRAM is not known: {why}"))
            }
            Vram::None | Vram::Unknown(_) => Gate::Open { room: None },
            full if !running && full.problem(most).is_some() => {
                Gate::Full(full.problem(most).unwrap_or_default())
            }
            Vram::Used { .. } => Gate::Open { room: self.free() },
        }
    }

    fn free(&mut self) -> Option<Bytes> {
        let sample = self.latest().known()?;
        let free = |place: &usize| sample.devices[*place].memory.known().map(|memory| memory.free);
        sample.visible.iter().filter_map(free).min()
    }

    /// Has it looked at now, and soon again.
    pub fn look_soon(&mut self, now: Instant) {
        self.gpu.ask();
        self.look_at = self.look_at.min(now.after(LOOK_AGAIN));
    }

    /// When there is something to be done: somebody is waited for, or the driver will be late.
    pub fn deadline(&self) -> Instant {
        match self.said {
            Some(_) => self.look_at,
            None => self.look_at.min(self.gpu.late_at()),
        }
    }
}

impl Owed {
    /// What of it is still held, if any. Where processes are hidden only the sum can tell, and only if no other file has
    /// changed it.
    fn missing(&self, sample: &Sample, alone: bool) -> Option<String> {
        let held = self.held_by(sample);
        let mut devices = sample.visible.iter().map(|place| &sample.devices[*place]);
        let hidden = devices.any(|device| device.hides_holders() || device.holders.is_err());
        held.or_else(|| match (hidden && alone, self.held.before, used(Reading::Known(sample))) {
            (true, Some(before), Some(now)) if now > before.plus(SLACK) => {
                Some(format!("{} more is used than before", now.minus(before)))
            }
            _ => None,
        })
    }

    /// Which of its processes hold some, by the driver's word.
    fn held_by(&self, sample: &Sample) -> Option<String> {
        let devices = sample.visible.iter().map(|place| &sample.devices[*place]);
        let all = devices.flat_map(|device| device.holders.iter().flatten());
        let its: Vec<String> = all
            .filter(|holder| self.held.pids.contains(&holder.pid))
            .map(|holder| format!("process {} holds {}", holder.pid, text(holder.used)))
            .collect();
        (!its.is_empty()).then(|| its.join(", "))
    }
}

fn text(used: Reading<Bytes>) -> String {
    used.known().map_or_else(|| "some".to_owned(), |used| used.to_string())
}

/// In use on all visible devices together.
fn used(seen: Reading<&Sample>) -> Option<Bytes> {
    let sample = seen.known()?;
    let used = |place: &usize| sample.devices[*place].memory.known().map(|memory| memory.used);
    sample.visible.iter().map(used).try_fold(Bytes::ZERO, |sum, used| Some(sum.plus(used?)))
}
