//! The machine's GPUs: what its jobs really hold of them, and what a driver tells of that, and when.

use std::time::Duration;

use oomguard_core::sample::{DeviceMemory, DeviceSample, HeldSample, Reading, Why};
use oomguard_core::{Amount, Bytes, DeviceId, Input, Instant, JobId};

use super::{Line, World, millis};

/// Between two readings.
const PACE: Duration = millis(200);

/// What a job does with a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct OnGpu {
    /// The one it takes memory of.
    pub device: u16,
    /// It may use all of them, and not only that one.
    pub sees_all: bool,
    /// It takes this at once.
    pub base: Bytes,
    /// Then so much more in a second.
    pub rate: Bytes,
    /// Of what it holds, it can give back this.
    pub cache: Bytes,
    /// After its end its memory stays for so long.
    pub lingers: Duration,
}

impl OnGpu {
    pub fn holds(device: u16, base: Bytes) -> OnGpu {
        let (rate, cache, lingers) = (Bytes::ZERO, Bytes::ZERO, Duration::ZERO);
        OnGpu { device, sees_all: false, base, rate, cache, lingers }
    }

    pub fn grows(device: u16, base: Bytes, rate: Bytes) -> OnGpu {
        OnGpu { rate, ..OnGpu::holds(device, base) }
    }
}

/// One GPU.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub total: f64,
    /// Held by others.
    pub strangers: f64,
    /// It cannot be read.
    pub why: Option<Why>,
    /// Who holds what is not shown.
    pub hides: bool,
}

/// What a slot's last job holds or has left.
#[derive(Clone, Debug, Default)]
pub struct OfSlot {
    pub used: f64,
    on: Option<OnGpu>,
    /// The job that holds it.
    number: u64,
    gone_at: Option<Instant>,
    cache_given: bool,
}

/// The driver.
#[derive(Clone, Debug, Default)]
pub struct Driver {
    pub gpus: Vec<Gpu>,
    pub of: Vec<OfSlot>,
    /// It does not answer before.
    pub hangs_until: Instant,
    /// Readings are told so much later than they begin.
    pub late: Duration,
    next: Instant,
    last: Instant,
    pub told: Told,
}

/// What was told last.
#[derive(Clone, Debug, Default)]
pub struct Told {
    pub at: Option<Instant>,
    pub devices: Vec<DeviceSample>,
    pub held: Vec<HeldSample>,
}

impl Told {
    /// What a job is known to hold, and of a device of what size and with how much left.
    pub fn of(&self, job: JobId) -> impl Iterator<Item = (DeviceId, Bytes, Option<DeviceMemory>)> {
        let rows = self.held.iter().filter(move |row| row.job == job);
        rows.filter_map(|row| Some((row.device, row.used.known()?, self.memory(row.device))))
    }

    pub fn memory(&self, device: DeviceId) -> Option<DeviceMemory> {
        self.devices.iter().find(|sample| sample.device == device)?.memory.known()
    }

    /// It is known to hold more than it may.
    pub fn is_over(&self, job: JobId, limit: Option<Amount>) -> bool {
        let over = |(_, used, memory): (_, Bytes, Option<DeviceMemory>)| {
            memory.zip(limit).is_some_and(|(memory, limit)| used > limit.of(memory.total))
        };
        self.of(job).any(over)
    }

    /// GPUs that are known to be short, of which it is known to hold some.
    pub fn short_of(&self, job: JobId, reserve: Option<Amount>) -> impl Iterator<Item = DeviceId> {
        let short = move |(device, used, memory): (DeviceId, Bytes, Option<DeviceMemory>)| {
            let (memory, reserve) = memory.zip(reserve)?;
            let enough = reserve.of(memory.total);
            let short = memory.free < enough.plus(enough.percent(10)).min(memory.total);
            (short && used > Bytes::ZERO).then_some(device)
        };
        self.of(job).filter_map(short)
    }
}

impl World {
    /// A GPU that nobody uses.
    pub fn gpu(&mut self, total: Bytes) -> DeviceId {
        self.driver.gpus.push(Gpu { total: total.0 as f64, strangers: 0.0, why: None, hides: false });
        DeviceId(self.driver.gpus.len() as u16 - 1)
    }

    /// What a slot's job holds of its GPU.
    pub fn vram(&self, job: JobId) -> Bytes {
        Bytes(self.driver.of.get(job.index()).map_or(0.0, |of| of.used) as u64)
    }

    /// From now on a job needs no more of its GPU than this.
    pub fn slots_gpu(&mut self, job: JobId, on: OnGpu) {
        if let Some(of) = self.driver.of.get_mut(job.index()) {
            let cache = of.on.as_ref().map_or(Bytes::ZERO, |before| before.cache);
            of.on = Some(OnGpu { cache, ..on });
        }
    }

    /// The driver says that it knows nothing.
    pub fn gpus_unknown(&mut self, why: Why) {
        self.driver.told = Told::default();
        self.input(Input::VramUnknown(why));
    }

    pub(super) fn gpu_free(&self, device: u16) -> f64 {
        let Some(gpu) = self.driver.gpus.get(usize::from(device)) else { return 0.0 };
        let here = |of: &&OfSlot| of.on.as_ref().is_some_and(|on| on.device == device);
        let held: f64 = self.driver.of.iter().filter(here).map(|of| of.used).sum();
        (gpu.total - gpu.strangers - held).max(0.0)
    }

    /// When the driver has something to say next.
    pub(super) fn next_reading(&self) -> Instant {
        let asked = self.engine.wants_gpus() && !self.driver.gpus.is_empty();
        if asked { self.driver.next.max(self.driver.hangs_until) } else { Instant::NEVER }
    }

    /// What the jobs do with GPUs, up to now.
    pub(super) fn move_vram(&mut self) {
        let now = self.now;
        let seconds = now.since(self.driver.last).as_secs_f64().min(5.0);
        self.driver.last = now;
        self.driver.of.resize_with(self.slots.len(), OfSlot::default);
        for index in 0..self.slots.len() {
            let process = self.slots[index].process.as_ref();
            let works = process.is_some_and(|p| p.works() && !p.main_gone);
            let still = process.is_some_and(|p| p.frozen_since.is_some() || p.is_stuck());
            let number = process.map_or(0, |p| p.number);
            let kind = process.and_then(|p| p.kind.gpu.clone());
            let of = &mut self.driver.of[index];
            if works && of.number != number {
                *of = OfSlot { number, on: kind, ..OfSlot::default() };
            } else if works && !still {
                let Some(on) = of.on.clone() else { continue };
                let wanted = (of.used + on.rate.0 as f64 * seconds).max(on.base.0 as f64);
                let used = of.used;
                let free = self.gpu_free(on.device);
                self.driver.of[index].used = wanted.min(used + free).max(used);
            } else if !works && of.used > 0.0 {
                let lingers = of.on.as_ref().map_or(Duration::ZERO, |on| on.lingers);
                let gone_at = *of.gone_at.get_or_insert(now.after(lingers));
                if gone_at <= now && process.is_none_or(|p| !p.is_stuck()) {
                    of.used = 0.0;
                }
            }
        }
    }

    /// A job gives back what it does not need, once.
    pub(super) fn relieve_vram(&mut self, job: JobId) {
        if let Some(of) = self.driver.of.get_mut(job.index())
            && !std::mem::replace(&mut of.cache_given, true)
        {
            of.used = (of.used - of.on.as_ref().map_or(0.0, |on| on.cache.0 as f64)).max(0.0);
        }
    }

    /// It begins its work again.
    pub(super) fn prune_vram(&mut self, job: JobId) {
        if let Some(of) = self.driver.of.get_mut(job.index()) {
            of.used = of.used.min(of.on.as_ref().map_or(0.0, |on| on.base.0 as f64));
        }
    }

    /// The driver is read, if that is due.
    pub(super) fn read_gpus(&mut self) {
        self.move_vram();
        if self.next_reading() > self.now {
            return;
        }
        self.driver.next = self.now.after(PACE);
        let free: Vec<f64> = (0..self.driver.gpus.len() as u16).map(|it| self.gpu_free(it)).collect();
        let gpus = self.driver.gpus.iter().zip(free).enumerate();
        let devices: Vec<DeviceSample> = gpus
            .map(|(index, (gpu, free))| {
                let memory = DeviceMemory { total: Bytes(gpu.total as u64), free: Bytes(free as u64) };
                let memory = gpu.why.map_or(Reading::Known(memory), Reading::Unknown);
                DeviceSample { device: DeviceId(index as u16), memory }
            })
            .collect();
        let mut held = Vec::new();
        for (index, of) in self.driver.of.iter().enumerate() {
            let Some(on) = &of.on else { continue };
            for (device, gpu) in self.driver.gpus.iter().enumerate() {
                let here = device == usize::from(on.device);
                if !here && !on.sees_all {
                    continue;
                }
                let used = Reading::Known(Bytes(if here { of.used as u64 } else { 0 }));
                let unknown = gpu.why.or(gpu.hides.then_some(Why::NoPermission));
                let used = unknown.map_or(used, Reading::Unknown);
                held.push(HeldSample { job: JobId(index as u16), device: DeviceId(device as u16), used });
            }
        }
        let at = Instant(self.now.0.saturating_sub(self.driver.late.as_nanos() as u64));
        let left: Vec<String> = devices
            .iter()
            .map(|it| match it.memory {
                Reading::Known(memory) => memory.free.to_string(),
                Reading::Unknown(why) => format!("{why:?}"),
            })
            .collect();
        self.story.push(self.now, Line::In(format!("GPUs, free: {}", left.join(", "))));
        self.driver.told = Told { at: Some(at), devices: devices.clone(), held: held.clone() };
        self.call(Input::Vram(at, &devices, &held));
        self.perform();
    }
}
