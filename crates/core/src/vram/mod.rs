//! What GPUs hold as far as it is known: what was read, of what age it is, and who holds how much of which.
//!
//! What is not known brakes nobody, and is said once. What follows from what is known stands in `limit` (a job that holds
//! more than it may), `short` (a GPU of which too little is left) and `back` (what the dead still hold). Never looks at RAM.

mod back;
mod limit;
mod short;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::effect::JobId;
use crate::engine::Engine;
use crate::event::{Cause, Event, Pause, Reason, Vram};
use crate::forecast::Growth;
use crate::job::{Job, Phase};
use crate::policy::VRAM_FRESH;
use crate::sample::{DeviceId, DeviceMemory, DeviceSample, HeldSample, Reading, Why};
use crate::units::Bytes;
use back::Owed;
use short::Stage;

/// No machine comes near so many GPUs; a recording that was tampered with may.
const MOST: usize = 1024;

/// All GPUs.
#[derive(Debug, Default)]
pub(crate) struct Gpus {
    devices: Vec<Device>,
    rows: Vec<Row>,
    /// When the last reading began.
    read_at: Option<Instant>,
    /// Since when somebody wants to know.
    wanted: Option<Instant>,
    /// Why nothing is known, if that has been said.
    said: Option<Why>,
}

/// One of them.
#[derive(Debug)]
struct Device {
    memory: Reading<DeviceMemory>,
    /// Why it is not known, if that has been said.
    said: Option<Why>,
    stage: Stage,
    /// A dead job that still holds some of it.
    stuck: Option<JobId>,
}

/// What a job holds of a device, and how fast that grows.
#[derive(Debug)]
struct Row {
    sample: HeldSample,
    growth: Growth,
}

/// What a job has to do with GPUs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OnGpus {
    /// Where it is nearest to its limit; without one, where it holds most.
    pub(crate) worst: Option<Holding>,
    /// It, or one before it in its slot, has been seen to hold some.
    pub(crate) has_held: bool,
    /// What it was last braked for.
    pub(crate) braked: Option<Holding>,
    /// Where it cannot be known, and why.
    unknown: Option<(DeviceId, Why)>,
    /// ... if that has been said.
    said: Option<(DeviceId, Why)>,
    /// Asked to give back for its own limit's sake, and has not fallen since.
    relieved: bool,
    /// It holds more than it may, since then.
    over: Option<Instant>,
    /// Its slot's last job held some, and that has not come back.
    owed: Option<Owed>,
}

impl OnGpus {
    /// What is kept of a slot's past: nobody may look in the next job's whole life.
    pub(crate) fn of_the_next(self) -> OnGpus {
        OnGpus { has_held: self.has_held, ..OnGpus::default() }
    }
}

/// What a job holds of one GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Of which.
    pub device: DeviceId,
    /// How much.
    pub used: Bytes,
    /// How much it may.
    pub limit: Option<Bytes>,
}

impl Holding {
    /// Nearer to its limit than `other`, or larger where there is none.
    fn is_worse_than(&self, other: &Holding) -> bool {
        let full = |it: &Holding| {
            it.limit.map_or(0, |limit| u128::from(it.used.0) * 1024 / u128::from(limit.0.max(1)))
        };
        (full(self), self.used) > (full(other), other.used)
    }
}

/// What others may see of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Which.
    pub device: DeviceId,
    /// Its memory.
    pub memory: Reading<DeviceMemory>,
    /// Less than the reserve is left of it.
    pub is_short: bool,
    /// A dead job that still holds some of it.
    pub stuck: Option<JobId>,
}

impl DeviceView {
    /// How full it is, if that is known.
    pub fn vram(&self) -> Option<Vram> {
        self.memory.known().map(|memory| Vram::new(self.device, memory))
    }
}

impl Gpus {
    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    /// When what was read is too old to be believed.
    pub(crate) fn stale_at(&self) -> Instant {
        match (self.wanted, self.said) {
            (Some(wanted), None) => self.read_at.unwrap_or(wanted).max(wanted).after(VRAM_FRESH),
            _ => Instant::NEVER,
        }
    }

    fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(id.index())
    }

    fn memory(&self, id: DeviceId) -> Option<DeviceMemory> {
        self.device(id)?.memory.known()
    }

    fn ids(&self) -> impl Iterator<Item = DeviceId> + use<> {
        (0..self.devices.len() as u16).map(DeviceId)
    }

    fn of(&self, job: JobId) -> impl Iterator<Item = &Row> + Clone {
        self.rows.iter().filter(move |row| row.sample.job == job)
    }

    /// Those who hold some of a device, and how much.
    fn holders(&self, device: DeviceId) -> impl Iterator<Item = (JobId, Bytes, &Row)> + Clone {
        let held = move |row: &'_ Row| row.sample.used.known().filter(|used| *used > Bytes::ZERO);
        let here = self.rows.iter().filter(move |row| row.sample.device == device);
        here.filter_map(move |row| Some((row.sample.job, held(row)?, row)))
    }

    /// Keeps the rows, and how each has grown. They come in the same order again and again.
    fn take(&mut self, at: Instant, held: &[HeldSample]) {
        for (place, sample) in held.iter().enumerate() {
            let is_same = |row: &Row| row.sample.job == sample.job && row.sample.device == sample.device;
            if !self.rows.get(place).is_some_and(is_same) {
                let growth = self.rows.iter().find(|row| is_same(row)).map(|row| row.growth);
                let row = Row { sample: *sample, growth: growth.unwrap_or_default() };
                self.rows.insert(place.min(self.rows.len()), row);
            }
            let row = &mut self.rows[place];
            row.sample = *sample;
            if let Some(used) = sample.used.known() {
                row.growth.update(at, used);
            }
        }
        self.rows.truncate(held.len());
    }
}

impl Engine {
    /// Whether GPUs are to be read: some job is judged by what it holds, or waits for what another held.
    pub fn wants_gpus(&self) -> bool {
        self.gpus.wanted.is_some()
    }

    /// All GPUs that have been seen.
    pub fn gpus(&self) -> impl Iterator<Item = DeviceView> {
        self.gpus.ids().zip(&self.gpus.devices).map(|(device, it)| DeviceView {
            device,
            memory: it.memory,
            is_short: it.stage != Stage::Enough,
            stuck: it.stuck,
        })
    }

    /// Follows whether anybody wants to know, and says when what is known has become too old. Called after every input.
    pub(crate) fn watch_gpus(&mut self, now: Instant) {
        let reserve = self.policy.vram_reserve.is_some();
        let wants = self.jobs.iter().any(|job| match job.phase {
            Phase::Waiting => job.gpus.owed.is_some() || job.waits_for == Some(Pause::Vram),
            phase => {
                (reserve || job.policy.vram_limit.is_some()) && (job.is_alive() || phase == Phase::Starting)
            }
        });
        self.gpus.wanted = wants.then(|| self.gpus.wanted.unwrap_or(now));
        if self.gpus.stale_at() <= now {
            self.gpus_unknown(Why::NoAnswer);
        }
    }

    pub(crate) fn gpus_read(
        &mut self,
        now: Instant,
        at: Instant,
        devices: &[DeviceSample],
        held: &[HeldSample],
    ) {
        if now.since(at) > VRAM_FRESH {
            return self.gpus_unknown(Why::NoAnswer);
        }
        self.gpus.read_at = Some(at);
        if self.gpus.said.take().is_some() {
            self.say(Event::VramKnown { device: None, job: None });
        }
        self.take_devices(devices);
        self.gpus.take(at, held);
        self.measure_holdings();
        for device in self.gpus.ids() {
            self.judge_device(now, at, device);
        }
        for id in self.ids() {
            self.say_unknown_holding(id);
            self.hold_to_vram_limit(now, at, id);
            self.has_vram_come_back(now, at, id);
        }
        self.find_stuck(now);
    }

    /// Nobody is judged by what is not known, and what was asked for because of it is taken back.
    pub(crate) fn gpus_unknown(&mut self, why: Why) {
        if self.gpus.said != Some(why) {
            self.gpus.said = Some(why);
            self.say(Event::VramUnknown { device: None, job: None, why });
        }
        self.gpus.read_at = None;
        for row in &mut self.gpus.rows {
            row.sample.used = Reading::Unknown(why);
        }
        for device in &mut self.gpus.devices {
            (device.memory, device.stage) = (Reading::Unknown(why), Stage::Enough);
        }
        for id in self.ids() {
            let gpus = &mut self.job(id).gpus;
            (gpus.worst, gpus.over, gpus.relieved) = (None, None, false);
            if self.job(id).asked == Some(Cause::Vram) {
                self.resume(id);
            }
        }
    }

    fn take_devices(&mut self, samples: &[DeviceSample]) {
        for device in &mut self.gpus.devices {
            device.memory = Reading::Unknown(Why::Lost);
        }
        for sample in samples.iter().filter(|sample| sample.device.index() < MOST) {
            let before = self.gpus.devices.len();
            while self.gpus.devices.len() <= sample.device.index() {
                let memory = Reading::Unknown(Why::NotYet);
                self.gpus.devices.push(Device { memory, said: None, stage: Stage::Enough, stuck: None });
            }
            if self.gpus.devices.len() > before {
                self.reserve();
            }
            self.gpus.devices[sample.device.index()].memory = sample.memory;
        }
        for id in self.gpus.ids() {
            let device = &mut self.gpus.devices[id.index()];
            let why = device.memory.why();
            // A number that nobody has had yet.
            if why == Some(Why::NotYet) || why == device.said {
                continue;
            }
            device.said = why;
            self.say(match why {
                Some(why) => Event::VramUnknown { device: Some(id), job: None, why },
                None => Event::VramKnown { device: Some(id), job: None },
            });
        }
    }

    /// Where each job stands with its limit.
    fn measure_holdings(&mut self) {
        for job in &mut self.jobs {
            (job.gpus.worst, job.gpus.unknown) = (None, None);
        }
        for row in &self.gpus.rows {
            let HeldSample { job, device, used } = row.sample;
            let Some(job) = self.jobs.get_mut(job.index()) else { continue };
            let total = self.gpus.devices.get(device.index()).map(|it| it.memory.map(|memory| memory.total));
            let limit = match (job.policy.vram_limit, total) {
                (None, _) => Reading::Known(None),
                (Some(limit), Some(total)) => total.map(|total| Some(limit.of(total))),
                (Some(_), None) => Reading::Unknown(Why::NotYet),
            };
            match (used, limit) {
                (Reading::Known(used), Reading::Known(limit)) => {
                    let holding = Holding { device, used, limit };
                    job.gpus.has_held |= used > Bytes::ZERO;
                    if job.gpus.worst.is_none_or(|worst| holding.is_worse_than(&worst)) {
                        job.gpus.worst = Some(holding);
                    }
                }
                (Reading::Unknown(why), _) | (_, Reading::Unknown(why)) => {
                    job.gpus.unknown.get_or_insert((device, why));
                }
            }
        }
    }

    /// A limit that cannot be judged is said once. That the device itself is not known has been said.
    fn say_unknown_holding(&mut self, id: JobId) {
        let is_known = |device: &DeviceId| self.gpus.memory(*device).is_some();
        let job = &self.jobs[id.index()];
        let limited = job.phase == Phase::Running && job.policy.vram_limit.is_some();
        let unknown = job.gpus.unknown.filter(|(device, _)| limited && is_known(device));
        match (unknown, job.gpus.said) {
            (Some((device, why)), said) if said != unknown => {
                self.say(Event::VramUnknown { device: Some(device), job: Some(id), why });
            }
            (None, Some((device, _))) if limited && is_known(&device) => {
                self.say(Event::VramKnown { device: Some(device), job: Some(id) });
            }
            _ => return,
        }
        self.job(id).gpus.said = unknown;
    }

    /// The fullest GPU that a job may use.
    pub(crate) fn fullest_gpu(&self, id: JobId) -> Option<Vram> {
        let vram = |row: &Row| Some(Vram::new(row.sample.device, self.gpus.memory(row.sample.device)?));
        let per_mille = |it: &Vram| u128::from(it.used.0) * 1000 / u128::from(it.total.0.max(1));
        self.gpus.of(id).filter_map(vram).max_by_key(|it| (per_mille(it), std::cmp::Reverse(it.device)))
    }

    /// Says that a job has to go for what it holds of a GPU.
    fn say_vram_brake(&mut self, id: JobId, holding: Holding, reason: Reason) {
        self.job(id).gpus.braked = Some(holding);
        let Holding { device, used, limit } = holding;
        let free = self.gpus.memory(device).map(|memory| memory.free);
        self.say(Event::VramBrake { job: id, device, reason, used, limit, free });
    }

    /// Asks a job to give back what it holds of GPUs without need.
    fn relieve_vram(&mut self, id: JobId, device: DeviceId, used: Bytes) {
        let job = self.job(id);
        if job.phase == Phase::Running && job.checks && !job.owes_relief {
            job.owes_relief = true;
            self.act(crate::effect::Effect::Relieve(id));
            self.say(Event::VramRelieve { job: id, device, used });
        }
    }
}

impl Job {
    /// It was asked to give back, and what was read at `at` cannot show yet what that brought.
    fn may_give_back_yet(&self, at: Instant) -> bool {
        self.owes_relief || self.gave_back.is_some_and(|then| at < then)
    }
}

/// Time since, for what is told.
fn since(now: Instant, then: Option<Instant>) -> Duration {
    then.map_or(Duration::ZERO, |then| now.since(then))
}
