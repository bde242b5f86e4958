//! The writing side: lines go to memory at once, and to the file by a thread that nobody waits for.
//!
//! On the guard's side an input costs a microsecond or two, takes no memory and no lock. Where the disk does not keep
//! up, lines are counted and the recording says how many are missing, and where. Memory: three times [`ROOM`].

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Wall};

use oomguard_core::recording::{Entry, Header};
use oomguard_core::{HostPolicy, Instant, JobId};
use serde::Serialize;

use super::Beside;
use crate::error::{Error, in_words};
use crate::record::{self, Notice, Record, Roster};
use crate::sink::Sink;

/// Some thousand looks: the disk may take its time.
const ROOM: usize = 512 << 10;
/// The thread's stack: it writes in a loop.
const STACK: usize = 64 << 10;
/// Recordings of earlier runs that are kept beside.
const KEEP: u32 = 3;
/// At the end the disk gets so much time.
const PATIENCE: Duration = Duration::from_secs(5);
/// ... and is asked this often.
const AGAIN: Duration = Duration::from_millis(10);

/// A recording that is being written; clones write to the same.
#[derive(Clone)]
pub struct Tape(Rc<RefCell<Writer>>);

struct Writer {
    path: PathBuf,
    /// Lines that the thread has not been given yet.
    waiting: Vec<u8>,
    lost: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// It has been said that the recording has ended before its time.
    said: bool,
    /// What was written about each job.
    known: Vec<Option<record::Entry>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    full: Vec<u8>,
    /// Nothing more will come.
    ends: bool,
    /// All that came is in the file.
    done: bool,
    failed: Option<String>,
}

impl Tape {
    /// Begins a recording; one that is there already is kept as `FILE.1`. Signals must be blocked before: the thread
    /// inherits that.
    pub fn start(path: &Path, header: &Header) -> Result<Tape, Error> {
        let fail = |error: &io::Error| Error::io("record to", path, error);
        if std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0) {
            let numbered = |number: u32| {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".{number}"));
                PathBuf::from(name)
            };
            for number in (1..KEEP).rev() {
                // A number that was never used is no failure.
                let _ = std::fs::rename(numbered(number), numbered(number + 1));
            }
            std::fs::rename(path, numbered(1)).map_err(|e| fail(&e))?;
        }
        let mut file = create(path).map_err(|e| fail(&e))?;
        let mut first = serde_json::to_vec(header).map_err(|e| fail(&e.into()))?;
        first.push(b'\n');
        file.write_all(&first).map_err(|e| fail(&e))?;
        Tape::over(path, file, first.len() as u64).map_err(|e| fail(&e))
    }

    /// Goes on in a file that holds so many bytes.
    fn over(path: &Path, file: File, whole: u64) -> io::Result<Tape> {
        let state = State { full: Vec::with_capacity(ROOM), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("oomguard-tape".to_owned())
            .stack_size(STACK)
            .spawn(move || write(file, whole, &theirs))?;
        Ok(Tape(Rc::new(RefCell::new(Writer {
            path: path.to_owned(),
            waiting: Vec::with_capacity(ROOM),
            lost: 0,
            shared,
            thread: Some(thread),
            said: false,
            known: Vec::new(),
        }))))
    }

    /// The engine is about to take this; whether there was room for it. Allocates nothing.
    pub fn input(&self, now: Instant, input: impl Serialize) -> bool {
        self.put(&Entry::<_, Beside>::In(now, input))
    }

    /// The engine has new thresholds.
    pub fn policy(&self, policy: HostPolicy) {
        self.put(&Entry::<(), Beside>::Policy(policy));
    }

    /// The engine is told what an earlier guard had counted.
    pub fn recall(&self, job: JobId, failures: u32) {
        self.put(&Entry::<(), Beside>::Recall(job, failures));
    }

    /// Hands on what is waiting. Never waits itself.
    pub fn flush(&self) {
        if let Ok(mut writer) = self.0.try_borrow_mut() {
            writer.flush();
        }
    }

    fn put(&self, entry: &impl Serialize) -> bool {
        self.0.try_borrow_mut().is_ok_and(|mut writer| writer.put(entry))
    }
}

/// Anew, for us alone, and never through a link that somebody has put there.
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o640).custom_flags(flags.bits().cast_signed());
    options.open(path)
}

/// The thread: takes what is there, writes it, until nothing more comes. Half a line never stays behind a failure.
fn write(mut file: File, mut whole: u64, shared: &Shared) {
    let mut batch = Vec::with_capacity(ROOM);
    loop {
        let Ok(state) = shared.state.lock() else { return };
        let waits = |state: &mut State| state.full.is_empty() && !state.ends;
        let Ok(mut state) = shared.wake.wait_while(state, waits) else { return };
        std::mem::swap(&mut state.full, &mut batch);
        let last = state.ends && batch.is_empty();
        drop(state);
        let written = file.write_all(&batch);
        whole += if written.is_ok() { batch.len() as u64 } else { 0 };
        batch.clear();
        if last || written.is_err() {
            let Ok(mut state) = shared.state.lock() else { return };
            if let Err(error) = written {
                let _ = file.set_len(whole);
                state.failed = Some(in_words(&error));
            }
            state.done = true;
            shared.wake.notify_all();
            return;
        }
    }
}

impl Writer {
    fn put(&mut self, entry: &impl Serialize) -> bool {
        if self.lost > 0 && self.line(&Entry::<(), Beside>::Lost(self.lost)) {
            self.lost = 0;
        }
        let written = self.lost == 0 && self.line(entry);
        self.lost += u64::from(!written);
        written
    }

    /// A whole line, or nothing of it.
    fn line(&mut self, entry: &impl Serialize) -> bool {
        let before = self.waiting.len();
        let mut room = Room { bytes: &mut self.waiting, is_full: false };
        let written = serde_json::to_writer(&mut room, entry).is_ok() && room.write(b"\n").is_ok();
        let fits = written && !room.is_full;
        if !fits {
            self.waiting.truncate(before);
        }
        fits
    }

    fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        // The thread holds it for the time of a swap; whoever comes later takes these along.
        let Ok(mut state) = self.shared.state.try_lock() else { return };
        if state.done {
            self.waiting.clear();
        } else if state.full.is_empty() {
            std::mem::swap(&mut state.full, &mut self.waiting);
        } else if state.full.len() + self.waiting.len() <= ROOM {
            state.full.append(&mut self.waiting);
        }
        drop(state);
        self.shared.wake.notify_all();
    }

    /// What has changed about the jobs since it was last written.
    fn jobs(&mut self, roster: &Roster) {
        for (job, entry) in roster.iter() {
            let entry = record::Entry { usage: None, ..entry.clone() };
            if self.known.len() <= job.index() {
                self.known.resize(job.index() + 1, None);
            }
            if self.known[job.index()].as_ref() != Some(&entry) {
                self.put(&Entry::<(), _>::Told(Beside::Job(job, entry.clone())));
                self.known[job.index()] = Some(entry);
            }
        }
    }

    /// Waits for the disk, for a while.
    fn close(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let (shared, end) = (Arc::clone(&self.shared), Wall::now() + PATIENCE);
        let Ok(mut state) = shared.state.lock() else { return };
        while !state.done && Wall::now() < end {
            if state.full.is_empty() && !state.ends {
                std::mem::swap(&mut state.full, &mut self.waiting);
                if self.lost > 0 && self.line(&Entry::<(), Beside>::Lost(self.lost)) {
                    self.lost = 0;
                }
                state.ends = self.waiting.is_empty();
                shared.wake.notify_all();
            }
            // Only the end is told to us; that there is room again is looked for.
            let Ok((again, _)) = shared.wake.wait_timeout(state, AGAIN) else { return };
            state = again;
        }
        if state.done {
            drop(state);
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Room for lines that never grows.
struct Room<'a> {
    bytes: &'a mut Vec<u8>,
    is_full: bool,
}

impl Write for Room<'_> {
    /// An error would take memory: whether all of it fitted is asked afterwards.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_full |= self.bytes.len() + bytes.len() > ROOM.min(self.bytes.capacity());
        if !self.is_full {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Tape {
    fn tell(&mut self, record: &Record, roster: &Roster) {
        let Ok(mut writer) = self.0.try_borrow_mut() else { return };
        writer.jobs(roster);
        writer.put(&Entry::<(), _>::Told(Beside::Record(record.clone())));
    }

    /// A recording with a hole decides something else: it ends where the disk failed.
    fn trouble(&mut self) -> Option<Notice> {
        let mut writer = self.0.try_borrow_mut().ok()?;
        if writer.said {
            return None;
        }
        let error = writer.shared.state.try_lock().ok()?.failed.clone()?;
        writer.said = true;
        let error = format!("{error}; the recording ends here");
        Some(Notice::SinkFailed { path: writer.path.clone(), error })
    }

    fn finish(&mut self) {
        if let Ok(mut writer) = self.0.try_borrow_mut() {
            writer.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oomguard_core::recording::Kept;

    fn tape(file: &Path) -> Tape {
        Tape::over(file, create(file).unwrap(), 0).unwrap()
    }

    fn lines(file: &Path) -> Vec<Entry<Kept, Beside>> {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_the_disk_does_not_take_in_time_is_counted_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape");
        let mut tape = tape(&file);
        let shared = Arc::clone(&tape.0.borrow().shared);
        // The disk stands still.
        let state = shared.state.lock().unwrap();
        let inputs = 40_000u64;
        for now in 0..inputs {
            tape.input(Instant(now), Kept::Tick);
            tape.flush();
        }
        drop(state);
        let lost = tape.0.borrow().lost;
        assert!(lost > 0 && lost < inputs);
        tape.flush();
        tape.input(Instant(inputs), Kept::Tick);
        tape.finish();
        let lines = lines(&file);
        let kept = usize::try_from(inputs - lost).unwrap();
        assert_eq!(lines[kept - 1], Entry::In(Instant(inputs - lost - 1), Kept::Tick));
        assert_eq!(lines[kept..], [Entry::Lost(lost), Entry::In(Instant(inputs), Kept::Tick)]);
    }

    #[test]
    fn what_is_missing_at_the_end_is_counted_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tape");
        let mut tape = tape(&file);
        let written = (0..40_000).filter(|now| tape.input(Instant(*now), Kept::Tick)).count() as u64;
        let lost = tape.0.borrow().lost;
        tape.finish();
        assert_eq!((lines(&file).last(), written + lost), (Some(&Entry::Lost(lost)), 40_000));
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut tape = Tape::over(&dir.path().join("tape"), full, 0).unwrap();
        tape.input(Instant(1), Kept::Tick);
        tape.finish();
        let Some(Notice::SinkFailed { error, .. }) = tape.trouble() else { panic!("nothing was said") };
        assert_eq!(error, "no space left on device; the recording ends here");
        assert_eq!(tape.trouble(), None);
        tape.input(Instant(2), Kept::Tick);
        tape.flush();
    }
}
