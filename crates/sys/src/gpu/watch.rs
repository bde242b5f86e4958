//! The thread that reads the GPUs, and what its reader sees of it.
//!
//! Touches whatever the sources touch, at a pace that follows what happens: every second while nothing moves, ten times as
//! often while memory grows or is short. Reading what it saw takes no lock that it holds while it asks a driver, and
//! allocates nothing. A driver that does not come back costs this thread and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oomguard_core::{Bytes, Instant, Reading, Why};
use rustix::event::{EventfdFlags, eventfd};

use super::nvml::Library;
use super::{Device, Driver, Places, Sample, drm, smi, visible};
use crate::clock;
use crate::error::{Error, Result};
use crate::wait::{Interest, until_ready};

/// Between two looks while nothing moves.
const CALM: Duration = Duration::from_secs(1);
/// ... while memory grows, or less than a tenth of a device is left.
const BRISK: Duration = Duration::from_millis(100);
/// Growth below this between two looks is no growth.
const STILL: Bytes = Bytes::mib(16);
/// No call is under way.
const IDLE: u64 = u64::MAX;

/// The GPUs as they were last seen. Dropping it ends the thread, at the latest when its driver comes back.
#[derive(Debug)]
pub struct Gpu {
    shared: Arc<Shared>,
    held: std::result::Result<Sample, Why>,
}

#[derive(Debug)]
struct Shared {
    /// Locked for a swap, and not before or after: whoever is woken by `news` finds it free.
    letter: Mutex<Letter>,
    wishes: Mutex<Wishes>,
    wake: Condvar,
    /// When the call that is under way will be late, in nanoseconds of the clock; [`IDLE`] without one.
    late_at: AtomicU64,
    /// Readable when there is something new.
    news: OwnedFd,
}

/// What the thread has for its reader.
#[derive(Debug)]
struct Letter {
    /// What the reader has not taken yet, or what it has given back.
    sample: std::result::Result<Sample, Why>,
    fresh: bool,
    /// The last one: the thread is gone, because there is nothing to watch.
    last: bool,
}

/// What the reader wants of the thread.
#[derive(Debug, Default)]
struct Wishes {
    asked: bool,
    parked: bool,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Waits until somebody asks or, unless it is parked, until `end`; whether there is more to do at all.
    fn rest(&self, end: Instant) -> bool {
        let mut wishes = lock(&self.wishes);
        while !wishes.closed && !std::mem::take(&mut wishes.asked) {
            let left = if wishes.parked { Duration::MAX } else { end.since(clock::now()) };
            if left.is_zero() {
                break;
            }
            // Some timers cannot hold more than that.
            let left = left.min(Duration::from_secs(1 << 20));
            wishes = self.wake.wait_timeout(wishes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !wishes.closed
    }
}

impl Gpu {
    /// Starts the thread. Nobody who does not ask for GPUs has it.
    pub fn watch(places: Places) -> Result<Gpu> {
        let news = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::Call { doing: "eventfd", errno })?;
        let late_at = clock::now().after(places.first_patience);
        let shared = Arc::new(Shared {
            letter: Mutex::new(Letter { sample: Err(Why::NotYet), fresh: false, last: false }),
            wishes: Mutex::default(),
            wake: Condvar::new(),
            late_at: AtomicU64::new(late_at.0),
            news,
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("oomguard-gpu".to_owned())
            .spawn(move || work(&own, places))
            .map_err(|error| Error::Call {
                doing: "start the thread that reads GPUs",
                errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN),
            })?;
        Ok(Gpu { shared, held: Err(Why::NotYet) })
    }

    /// What was last seen; [`Why::NoAnswer`] while a driver is late. Never blocks, allocates nothing.
    pub fn latest(&mut self, now: Instant) -> Reading<&Sample> {
        // Held for a swap at most. Whoever comes in between sees what it saw before.
        if let Ok(mut letter) = self.shared.letter.try_lock()
            && std::mem::take(&mut letter.fresh)
        {
            std::mem::swap(&mut self.held, &mut letter.sample);
        }
        if now.0 >= self.shared.late_at.load(Ordering::Acquire) {
            return Reading::Unknown(Why::NoAnswer);
        }
        match &self.held {
            Ok(sample) => Reading::Known(sample),
            Err(why) => Reading::Unknown(*why),
        }
    }

    /// When the driver will be late, if it has not answered by then; [`Instant::NEVER`] while nobody asks it.
    pub fn late_at(&self) -> Instant {
        Instant(self.shared.late_at.load(Ordering::Acquire))
    }

    /// Has it read now, whatever its pace.
    pub fn ask(&self) {
        lock(&self.shared.wishes).asked = true;
        self.shared.wake.notify_one();
    }

    /// Nothing is read any more until somebody asks, or for as long as this holds.
    pub fn park(&self, parked: bool) {
        lock(&self.shared.wishes).parked = parked;
        self.shared.wake.notify_one();
    }

    /// Waits for what was read after this call, until `end` or until the driver is late; then what there is.
    pub fn read_now(&mut self, end: Instant) -> Reading<&Sample> {
        let begin = clock::now();
        self.ask();
        loop {
            let ended = {
                let mut letter = lock(&self.shared.letter);
                if std::mem::take(&mut letter.fresh) {
                    std::mem::swap(&mut self.held, &mut letter.sample);
                }
                letter.last
            };
            if ended || self.held.as_ref().is_ok_and(|sample| sample.at >= begin) {
                break;
            }
            // Looked at now and then: it may not have begun yet, and says only then when it will be late.
            let until = end.min(self.late_at()).min(clock::now().after(BRISK));
            match until_ready(self.shared.news.as_fd(), Interest::Read, until) {
                Ok(true) => self.hear(),
                Ok(false) if clock::now() < end.min(self.late_at()) => {}
                _ => break,
            }
        }
        self.latest(clock::now())
    }

    /// Takes note that [`Gpu::fd`] was readable.
    pub fn hear(&self) {
        let _ = rustix::io::read(&self.shared.news, &mut [0u8; 8]);
    }

    /// Readable when there is something new, until [`Gpu::hear`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        lock(&self.shared.wishes).closed = true;
        self.shared.wake.notify_one();
    }
}

fn work(shared: &Shared, places: Places) {
    let mut sources = Sources { nvml: None, again_at: Instant(0), complaint: None, places };
    let mut used: Vec<Bytes> = Vec::new();
    loop {
        let sample = sources.read(&|may_take: Duration| {
            shared.late_at.store(clock::now().after(may_take).0, Ordering::Release);
        });
        shared.late_at.store(IDLE, Ordering::Release);
        let absent = |driver: &Driver| matches!(driver.says, Err((Why::NoDriver, _)));
        let nothing = sample.devices.is_empty() && sample.drivers.iter().all(absent);
        let end = clock::now().after(pace(&sample.devices, &mut used));
        let old = {
            let mut letter = lock(&shared.letter);
            letter.fresh = true;
            // There will not be a GPU all of a sudden: no thread either.
            letter.last = nothing;
            std::mem::replace(&mut letter.sample, Ok(sample))
        };
        drop(old);
        let _ = rustix::io::write(&shared.news, &1u64.to_ne_bytes());
        if nothing || !shared.rest(end) {
            return;
        }
    }
}

/// How soon to look again.
fn pace(devices: &[Device], used: &mut Vec<Bytes>) -> Duration {
    let memory = |device: &Device| device.memory.known();
    let now: Vec<Bytes> =
        devices.iter().map(|it| memory(it).map_or(Bytes::ZERO, |memory| memory.used)).collect();
    let grows = used.len() == now.len() && used.iter().zip(&now).any(|(then, now)| now.minus(*then) > STILL);
    let short = devices.iter().filter_map(memory).any(|memory| memory.free < memory.total.percent(10));
    *used = now;
    if grows || short { BRISK } else { CALM }
}

/// Everybody who can be asked.
struct Sources {
    nvml: Option<Library>,
    /// The library is not tried before.
    again_at: Instant,
    /// What it said when it was last tried.
    complaint: Option<(Why, String)>,
    places: Places,
}

impl Sources {
    /// Asks everybody. `until_late` is told beforehand how long what comes next may take.
    fn read(&mut self, until_late: &dyn Fn(Duration)) -> Sample {
        let mut sample = Sample { at: clock::now(), ..Sample::default() };
        sample.drivers.push(self.nvidia(&mut sample.devices, until_late));
        // Not there, or too old a library to know our questions: its own program may do.
        let other = |driver: &Driver| matches!(driver.says, Err((Why::NoDriver | Why::NotSupported, _)));
        if sample.drivers.iter().all(other) {
            let mut devices = Vec::new();
            // Two questions, and the end of each.
            until_late(self.places.smi_patience * 4);
            let said = smi::read(&self.places.smi, self.places.smi_patience, &mut devices);
            // Not even there: what the library said is the better reason.
            if !matches!(said, Err((Why::NoDriver, _))) {
                sample.drivers.push(Driver { name: "nvidia-smi", says: said });
                sample.devices.append(&mut devices);
            }
        }
        let before = sample.devices.len();
        until_late(self.places.patience);
        drm::read(&self.places.sys, &self.places.proc, &mut sample.devices);
        if sample.devices.len() > before {
            sample.drivers.push(Driver { name: "sysfs", says: Ok(String::new()) });
        }
        sample.visible = visible(&sample.devices, &self.places.variables);
        sample
    }

    /// By the library, which is loaded where it is not; after all of its cards have failed it is loaded anew, because
    /// it does not survive a reset or an update of its driver.
    fn nvidia(&mut self, devices: &mut Vec<Device>, until_late: &dyn Fn(Duration)) -> Driver {
        const NAME: &str = "NVML";
        let now = clock::now();
        if self.nvml.is_none() && now >= self.again_at {
            self.again_at = now.after(self.places.retry);
            until_late(self.places.first_patience);
            match Library::open(&self.places.nvml) {
                Ok(library) => (self.nvml, self.complaint) = (Some(library), None),
                Err(complaint) => self.complaint = Some(complaint),
            }
        }
        let Some(library) = &self.nvml else {
            let complaint = self.complaint.clone().unwrap_or((Why::NotYet, String::new()));
            return Driver { name: NAME, says: Err(complaint) };
        };
        until_late(self.places.patience);
        let says = library.read(devices).map(|()| library.version().to_owned());
        let fails =
            |device: &Device| matches!(device.memory, Reading::Unknown(why) if why != Why::NotSupported);
        let all_fail = !devices.is_empty() && devices.iter().all(fails);
        if says.is_err() || all_fail {
            let first = devices.first().and_then(|device| device.memory.why()).unwrap_or(Why::NotYet);
            let lost = || (first, "no card answers; the library is loaded anew".to_owned());
            self.complaint = Some(says.as_ref().err().cloned().unwrap_or_else(lost));
            self.nvml = None;
            self.again_at = now.after(self.places.retry);
        }
        // Too old a driver does not know the questions that are asked here. Its own program does.
        let unknown = |device: &Device| device.memory == Reading::Unknown(Why::NotSupported);
        if !devices.is_empty() && devices.iter().all(unknown) {
            devices.clear();
            return Driver { name: NAME, says: Err((Why::NotSupported, "its driver is too old".to_owned())) };
        }
        Driver { name: NAME, says }
    }
}
