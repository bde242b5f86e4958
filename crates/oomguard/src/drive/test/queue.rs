//! Which test file is next: as many together as memory has room for, one GPU file at a time, some alone.
//!
//! Decides on numbers that it is given. It reads nothing and starts nothing.

use oomguard_core::Bytes;

/// What a file asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Memory: the most that it used before, or its limit.
    pub memory: Bytes,
    /// Nothing else may run beside it.
    pub alone: bool,
    /// It uses a GPU.
    pub gpu: bool,
    /// How much of it: the most that it used before, or its limit. Without, it has the GPU to itself.
    pub vram: Option<Bytes>,
}

/// What there is of GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuRoom {
    /// No file that uses one may start now.
    Closed,
    /// All such files together may use so much of one; `None`: nobody knows.
    Open(Option<Bytes>),
}

/// A file that waits, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    file: usize,
    need: Need,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start this one.
    Start(usize),
    /// Somebody has to end first.
    Wait,
    /// Nothing waits any more.
    Empty,
}

/// The files that wait, and what those that run need.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<Waiting>,
    running: Vec<Waiting>,
    /// GPU files may share a GPU.
    packed: bool,
}

impl Queue {
    /// With all files in the order in which they are to be tried; those that must be alone go last, so that the
    /// others need not wait for an empty machine twice.
    pub fn new(files: impl IntoIterator<Item = (usize, Need)>, packed: bool) -> Queue {
        let all = files.into_iter().map(|(file, need)| Waiting { file, need });
        let (alone, together): (Vec<_>, Vec<_>) = all.partition(|it| it.need.alone);
        Queue { waiting: together.into_iter().chain(alone).collect(), running: Vec::new(), packed }
    }

    /// Runs this file once more, after all others and alone.
    pub fn again(&mut self, file: usize, need: Need) {
        self.waiting.push(Waiting { file, need: Need { alone: true, ..need } });
    }

    /// The next file, taken out. `room` is what all files together may use: what is available, and what those that
    /// run use already, less the reserve. Whoever does not fit is passed by, until nothing runs: then it is tried.
    /// `gpu` is the same for GPUs.
    pub fn next(&mut self, room: Bytes, gpu: GpuRoom) -> Next {
        if self.waiting.is_empty() {
            return Next::Empty;
        }
        if self.running.iter().any(|it| it.need.alone) {
            return Next::Wait;
        }
        let taken = self.running.iter().map(|it| it.need.memory).fold(Bytes::ZERO, Bytes::plus);
        let idle = self.running.is_empty();
        let fits = |it: &Waiting| match idle {
            _ if it.need.gpu && !self.gpu_has_room(it.need, gpu) => false,
            true => true,
            false => !it.need.alone && taken.plus(it.need.memory) <= room,
        };
        match self.waiting.iter().position(fits) {
            Some(at) => {
                let next = self.waiting.remove(at);
                self.running.push(next);
                Next::Start(next.file)
            }
            None => Next::Wait,
        }
    }

    /// One at a time, unless they are packed and it is known of all of them what they need.
    fn gpu_has_room(&self, need: Need, gpu: GpuRoom) -> bool {
        let GpuRoom::Open(room) = gpu else { return false };
        let others: Vec<Option<Bytes>> =
            self.running.iter().filter(|it| it.need.gpu).map(|it| it.need.vram).collect();
        if others.is_empty() {
            return true;
        }
        let taken = others.iter().try_fold(Bytes::ZERO, |sum, vram| Some(sum.plus((*vram)?)));
        match (self.packed, taken, need.vram, room) {
            (true, Some(taken), Some(wanted), Some(room)) => taken.plus(wanted) <= room,
            _ => false,
        }
    }

    /// A file that uses a GPU runs.
    pub fn gpu_is_used(&self) -> bool {
        self.running.iter().any(|it| it.need.gpu)
    }

    /// All that wait use a GPU.
    pub fn waits_for_gpu(&self) -> bool {
        !self.waiting.is_empty() && self.waiting.iter().all(|it| it.need.gpu)
    }

    /// It has ended.
    pub fn ended(&mut self, file: usize) {
        self.running.retain(|it| it.file != file);
    }

    /// Nothing runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives up what waits.
    pub fn drain(&mut self) -> Vec<usize> {
        self.waiting.drain(..).map(|it| it.file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Need = Need { memory: Bytes::gib(2), alone: false, gpu: false, vram: None };
    const GPU: Need = Need { gpu: true, ..CPU };
    const ALONE: Need = Need { alone: true, ..CPU };

    const OPEN: GpuRoom = GpuRoom::Open(None);

    fn queue(needs: &[Need]) -> Queue {
        Queue::new(needs.iter().copied().enumerate(), false)
    }

    #[test]
    fn as_many_run_together_as_memory_has_room_for() {
        let mut queue = queue(&[CPU, CPU, CPU]);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(0));
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(1));
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Wait);
        queue.ended(0);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(2));
        queue.ended(1);
        queue.ended(2);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Empty);
    }

    #[test]
    fn a_file_too_large_for_the_room_is_passed_by_and_runs_when_nothing_else_does() {
        let large = Need { memory: Bytes::gib(9), ..CPU };
        let mut queue = queue(&[CPU, large, CPU]);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(0));
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(2));
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Wait);
        queue.ended(0);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Wait);
        queue.ended(2);
        assert_eq!(queue.next(Bytes::gib(5), OPEN), Next::Start(1));
    }

    #[test]
    fn gpu_files_take_turns_and_let_others_run_beside_them() {
        let mut queue = queue(&[GPU, GPU, CPU]);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(0));
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(2));
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Wait);
        queue.ended(0);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(1));
    }

    #[test]
    fn packed_gpu_files_run_together_as_far_as_their_vram_is_known_to_fit() {
        let known = |gib| Need { vram: Some(Bytes::gib(gib)), ..GPU };
        let mut queue = Queue::new([(0, known(4)), (1, GPU), (2, known(5)), (3, known(3))], true);
        let gpu = GpuRoom::Open(Some(Bytes::gib(8)));
        assert_eq!(queue.next(Bytes::gib(50), gpu), Next::Start(0));
        // What is not known might need all of it, and 4 + 5 is too much.
        assert_eq!(queue.next(Bytes::gib(50), gpu), Next::Start(3));
        assert_eq!(queue.next(Bytes::gib(50), gpu), Next::Wait);
        queue.ended(0);
        queue.ended(3);
        assert_eq!(queue.next(Bytes::gib(50), gpu), Next::Start(1));
        assert_eq!(queue.next(Bytes::gib(50), gpu), Next::Wait);
    }

    #[test]
    fn a_full_gpu_keeps_only_those_waiting_who_want_it() {
        let mut queue = queue(&[GPU, CPU, GPU]);
        assert_eq!(queue.next(Bytes::gib(50), GpuRoom::Closed), Next::Start(1));
        assert_eq!(queue.next(Bytes::gib(50), GpuRoom::Closed), Next::Wait);
        assert!(queue.waits_for_gpu() && !queue.gpu_is_used());
        queue.ended(1);
        assert_eq!(queue.next(Bytes::gib(50), GpuRoom::Closed), Next::Wait, "not even when nothing runs");
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(0));
        assert!(queue.gpu_is_used());
    }

    #[test]
    fn a_file_that_must_be_alone_runs_last_and_alone() {
        let mut queue = queue(&[ALONE, CPU]);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(1));
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Wait);
        queue.ended(1);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(0));
        queue.again(1, CPU);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Wait);
        queue.ended(0);
        assert_eq!(queue.next(Bytes::gib(50), OPEN), Next::Start(1));
    }
}
