//! How far a child came between fork and exec, told through a page that both can see.
//!
//! Touches one anonymous shared page for the length of a start. Never anything else.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Stage {
    Fork,
    Join,
    Session,
    OomScore,
    Rlimit,
    Restore,
    Exec,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Fork,
        Stage::Join,
        Stage::Session,
        Stage::OomScore,
        Stage::Rlimit,
        Stage::Restore,
        Stage::Exec,
    ];

    /// For "cannot ...".
    pub(super) fn doing(self) -> &'static str {
        match self {
            Stage::Fork => "fork",
            Stage::Join => "put the job into its cgroup",
            Stage::Session => "give the job a session of its own",
            Stage::OomScore => "set the job's `oom_score_adj`",
            Stage::Rlimit => "set the job's `RLIMIT_DATA`",
            Stage::Restore => "give the job its signals and timers back",
            Stage::Exec => "execute the program",
        }
    }
}

/// One number that outlives a fork in both.
#[derive(Clone)]
pub(super) struct StageCell(Arc<Page>);

struct Page(NonNull<AtomicU32>);

// SAFETY: the page is only ever accessed through an atomic.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl StageCell {
    pub(super) fn new() -> io::Result<StageCell> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping wherever the kernel likes; zero-filled, so a valid atomic.
        let page =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size_of::<AtomicU32>(), protection, flags)? };
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(StageCell(Arc::new(Page(page))))
    }
    fn atomic(&self) -> &AtomicU32 {
        // SAFETY: mapped, aligned and initialised as long as the page lives.
        unsafe { self.0.0.as_ref() }
    }
    pub(super) fn set(&self, stage: Stage) {
        self.atomic().store(stage as u32, Ordering::Relaxed);
    }
    pub(super) fn get(&self) -> Stage {
        let number = self.atomic().load(Ordering::Relaxed) as usize;
        Stage::ALL.get(number).copied().unwrap_or(Stage::Fork)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and nobody can reach it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), size_of::<AtomicU32>()) };
    }
}
