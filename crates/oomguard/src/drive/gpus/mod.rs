//! GPUs beside the guard's loop: what their drivers say, in the engine's words, and whose it is.
//!
//! Where no driver tells, what workers say of themselves. The thread that asks the drivers exists from when the engine first
//! wants to know, and stands still while it does not. Nothing here waits for a driver while a job runs, and decides nothing:
//! one that is late is told to the engine as that.

mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use oomguard_core::sample::{DeviceMemory, DeviceSample, HeldSample};
use oomguard_core::{Bytes, DeviceId, Input, Instant, JobId, Level, Reading, Why};
use oomguard_sys::clock;
use oomguard_sys::gpu::{self, Device, Gpu, Memory, Places, Sample, Variables, Vendor};
use oomguard_sys::process::Process;
use oomguard_sys::wait::Interest;

use super::{GPUS, Guard, vram};
use crate::notify::TorchVram;
use crate::record::Notice;
use told::Told;

/// Before the first start, for so long at most: a driver that hangs is no reason not to start.
const FIRST: Duration = Duration::from_secs(5);

/// So long what is read of GPUs may wait while RAM is short.
const WAITS: Duration = Duration::from_secs(5);

/// What is known of GPUs.
#[derive(Default)]
pub struct Gpus {
    thread: Option<Gpu>,
    parked: bool,
    /// It has been told that the driver is late, or that there is none, and nothing has come since.
    said: bool,
    /// When something was taken in last.
    taken: Instant,
    /// All that were ever seen, by their [`DeviceId`].
    known: Vec<Device>,
    /// Whose the processes are that hold memory: by their number and start time.
    owners: BTreeMap<u32, (Option<u64>, Option<JobId>)>,
    /// What workers say.
    told: Told,
    /// No driver, or one that does not tell all: workers are to say what they hold.
    is_blind: bool,
    devices: Vec<DeviceSample>,
    held: Vec<HeldSample>,
}

impl Gpus {
    /// When the driver will be late, if it has not answered by then.
    pub fn deadline(&self) -> Instant {
        match &self.thread {
            Some(thread) if !self.said && !self.parked => thread.late_at(),
            _ => Instant::NEVER,
        }
    }

    /// Something has changed that is worth a look.
    pub fn ask(&self) {
        if let Some(thread) = self.thread.as_ref().filter(|_| !self.parked) {
            thread.ask();
        }
    }

    /// A new job begins in a slot: what the one before has left is not its own.
    pub fn begins(&mut self, job: JobId) {
        self.owners.retain(|_, (_, owner)| *owner != Some(job));
        self.told.begins(job);
    }

    /// Whether workers are to say what they hold.
    pub fn must_be_told(&self) -> bool {
        self.is_blind && !self.parked
    }

    /// The size of the largest GPU that may be used, where one is known. A share of it is never more than was allowed.
    pub fn largest(&self, sees: &Variables) -> Option<Bytes> {
        let total = |place: usize| self.known[place].memory.known().map(|memory| memory.total);
        gpu::visible(&self.known, sees).into_iter().filter_map(total).max()
    }

    /// The number of a device: by its name where it has one, else by its place.
    fn number(&self, device: &Device, card: Option<usize>) -> Option<usize> {
        let is_same = |it: &Device| match (it.uuid.as_str(), device.uuid.as_str()) {
            ("", _) | (_, "") => (it.vendor, it.index, it.card) == (device.vendor, device.index, card),
            (known, new) => known == new,
        };
        self.known.iter().position(is_same)
    }
}

/// What a worker says that torch holds.
struct Holds {
    job: JobId,
    device: DeviceId,
    used: Bytes,
    memory: Memory,
}

/// Whether drivers leave something open that workers can tell: what there is, or who holds it.
fn is_blind(sample: &Sample) -> bool {
    let tells = |it: &Device| it.memory.known().is_some() && it.holders.is_ok() && !it.hides_holders();
    sample.devices.is_empty() || !sample.devices.iter().all(|it| it.divided || tells(it))
}

impl Guard {
    /// Watches GPUs as long as the engine wants to know. Costs nothing while it does not.
    pub(super) fn follow_gpus(&mut self, now: Instant) {
        let wanted = self.engine.wants_gpus();
        if wanted && self.gpus.thread.is_none() {
            self.start_watching_gpus();
        }
        let Some(thread) = &self.gpus.thread else { return };
        if self.gpus.parked == wanted {
            self.gpus.parked = !wanted;
            thread.park(!wanted);
            if wanted {
                thread.ask();
            }
        }
        if now >= self.gpus.deadline() {
            self.gpus.said = true;
            self.engine.handle(now, Input::VramUnknown(Why::NoAnswer));
        }
    }

    fn start_watching_gpus(&mut self) {
        // Which of them a job may use is asked of its own environment.
        match Gpu::watch(Places::default()) {
            Ok(thread) => {
                self.poller.add(thread.fd(), Interest::Read, GPUS);
                self.gpus.thread = Some(thread);
            }
            // The next turn tries again.
            Err(_) if self.gpus.said => {}
            Err(error) => {
                self.gpus.said = true;
                self.note(Notice::SensorUnknown { sensor: "gpu".to_owned(), why: error.to_string() });
            }
        }
    }

    /// There is something new.
    pub(super) fn hear_gpus(&mut self) {
        if let Some(thread) = &self.gpus.thread {
            thread.hear();
            self.look_at_gpus();
        }
    }

    /// A worker says what torch holds there. A driver that knows the devices is asked soon enough.
    pub fn hear_torch(&mut self, job: JobId, pid: u32, torch: TorchVram) {
        if self.gpus.must_be_told() {
            self.gpus.told.hear(clock::now(), job, pid, torch);
            self.look_at_gpus();
        }
    }

    /// Takes in what is known. While RAM is short it waits for a while: that takes memory.
    fn look_at_gpus(&mut self) {
        let now = clock::now();
        let Some(mut thread) = self.gpus.thread.take() else { return };
        let short = self.engine.level() == Level::Critical && now.since(self.gpus.taken) < WAITS;
        let busy = self.gpus.parked || short;
        match thread.latest(now) {
            _ if busy => {}
            Reading::Known(sample) => {
                self.gpus.is_blind = is_blind(sample);
                self.gpus.told.forget(now);
                if sample.devices.is_empty() && self.gpus.known.is_empty() && self.gpus.told.rows().is_empty()
                {
                    self.gpus.said = true;
                    self.engine.handle(now, Input::VramUnknown(sample.why_none()));
                } else {
                    (self.gpus.said, self.gpus.taken) = (false, now);
                    self.take_gpus(now, sample);
                }
            }
            Reading::Unknown(_) => {}
        }
        self.gpus.thread = Some(thread);
    }

    fn take_gpus(&mut self, now: Instant, sample: &Sample) {
        let numbers = self.number_gpus(&sample.devices);
        let told = self.number_told(sample, &numbers);
        self.find_owners(sample);
        let gpus = &mut self.gpus;
        gpus.devices.clear();
        gpus.held.clear();
        // Nobody can say anything of any: the library is loaded anew, and they are still those that they were.
        let gone = sample.devices.is_empty().then(|| sample.why_none());
        for device in (0..gpus.known.len() as u16).map(DeviceId) {
            let read =
                numbers.iter().position(|number| *number == device).map(|at| sample.devices[at].memory);
            // Of what several have said, the last word counts.
            let said =
                || told.iter().rev().find(|it| it.device == device).map(|it| Reading::Known(it.memory));
            let read = read.filter(|memory| memory.known().is_some()).or_else(said).or(read);
            if let Some(memory) = read.or(gone.map(Reading::Unknown)) {
                let memory = memory.map(|it| DeviceMemory { total: it.total, free: it.free });
                gpus.devices.push(DeviceSample { device, memory });
            }
        }
        for (index, hand) in self.hands.iter().enumerate() {
            let job = JobId(index as u16);
            let its = |it: &&Holds| it.job == job;
            let mut all: Vec<DeviceId> = told.iter().filter(its).map(|it| it.device).collect();
            all.extend(gpu::visible(&gpus.known, &hand.sees).into_iter().map(|place| DeviceId(place as u16)));
            all.sort_unstable();
            all.dedup();
            for id in all {
                let read = numbers.iter().position(|number| *number == id);
                let is_its = |pid| gpus.owners.get(&pid).is_some_and(|(_, owner)| *owner == Some(job));
                let used = match read {
                    Some(at) => sample.devices[at].used_by(is_its),
                    None => Reading::Unknown(gone.unwrap_or(Why::Lost)),
                };
                let said = told.iter().filter(its).filter(|it| it.device == id).map(|it| it.used);
                let used = match (used, said.reduce(Bytes::plus)) {
                    (Reading::Unknown(_), Some(said)) => Reading::Known(said),
                    (used, _) => used,
                };
                gpus.held.push(HeldSample { job, device: id, used });
            }
        }
        let read_at = (!sample.devices.is_empty()).then_some(sample.at);
        let at = read_at.into_iter().chain(gpus.told.since()).min().unwrap_or(now);
        self.engine.handle(now, Input::Vram(at, &self.gpus.devices, &self.gpus.held));
    }

    /// What workers say, by the devices that they mean. Where a driver names some, a worker means one of them.
    fn number_told(&mut self, sample: &Sample, numbers: &[DeviceId]) -> Vec<Holds> {
        let named = sample.devices.iter().any(|it| it.vendor == Vendor::Nvidia);
        let mut told = Vec::new();
        for index in 0..self.gpus.told.rows().len() {
            let row = &self.gpus.told.rows()[index];
            let (job, used) = (row.job, row.torch.used);
            let sees = &self.hands[job.index()].sees;
            let (place, device) = (row.find(&sample.devices, sees), row.device(sees));
            let number = match place {
                Some(place) => Some(numbers[place]),
                None if named => None,
                None => self.number_gpus(std::slice::from_ref(&device)).pop(),
            };
            let memory = device.memory.known();
            told.extend(number.zip(memory).map(|(device, memory)| Holds { job, device, used, memory }));
        }
        told
    }

    /// The number of each; those that are new are told.
    fn number_gpus(&mut self, devices: &[Device]) -> Vec<DeviceId> {
        let mut numbers: Vec<DeviceId> = Vec::with_capacity(devices.len());
        for device in devices {
            let card = device.card.and_then(|card| numbers.get(card)).map(|card| card.index());
            let number = self.gpus.number(device, card).unwrap_or(self.gpus.known.len());
            let id = DeviceId(number as u16);
            numbers.push(id);
            if number == self.gpus.known.len() {
                self.gpus.known.push(Device { card, ..device.clone() });
                let (name, uuid) = (vram::name(device), device.uuid.clone());
                let total = device.memory.known().map(|memory| memory.total);
                self.roster.set_gpu(id, &name);
                let reserve = self.engine.host_policy().vram_reserve;
                if let Some((reserve, total)) =
                    reserve.zip(total).filter(|(it, total)| it.of(*total) >= *total)
                {
                    let text = format!(
                        "⚠️  a vram_reserve of {reserve} leaves nothing of {name} ({total}): no rule there"
                    );
                    self.note(Notice::Note { text });
                }
                self.note(Notice::Gpu { device: id, name, uuid, total });
            } else if device.memory.known().is_some() {
                // What is lost keeps its name.
                self.gpus.known[number] = Device { card, ..device.clone() };
            }
        }
        numbers
    }

    /// Whose the processes are. Who is dead keeps what he holds; a number that was given away again is somebody else.
    fn find_owners(&mut self, sample: &Sample) {
        let mut holders: Vec<u32> =
            sample.devices.iter().flat_map(|it| it.holders.iter().flatten()).map(|it| it.pid).collect();
        holders.sort_unstable();
        holders.dedup();
        let mut before = std::mem::take(&mut self.gpus.owners);
        for pid in holders {
            let start = Process::open(pid).ok().map(|process| process.start_time());
            let known = before.remove(&pid).filter(|(then, _)| start.is_none() || *then == start);
            let owner = known.and_then(|(_, owner)| owner).or_else(|| self.job_of(pid));
            self.gpus.owners.insert(pid, (start.or(known.and_then(|(then, _)| then)), owner));
        }
    }

    /// Reads GPUs before anything runs, so that the first jobs are told what is theirs. Not while a job runs: nothing
    /// may wait for a driver then.
    pub(super) fn see_gpus_first(&mut self) {
        self.start_watching_gpus();
        if let Some(thread) = &mut self.gpus.thread {
            let _ = thread.read_now(clock::now().after(FIRST));
        }
        self.hear_gpus();
    }
}
