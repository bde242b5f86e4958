//! `oomguard watch`: the guard of the whole machine, for what nobody has started through oomguard.
//!
//! Reads the host and all processes when the core asks for it, and does what the core says. Decides nothing itself.
//! Never signals without `--enforce`, and never anything but what it holds by a pidfd.

mod rules;
mod service;
pub(super) mod told;

use std::time::Duration;

use oomguard_core::recording::Made;
use oomguard_core::watch::recording::{Changes, Input};
use oomguard_core::watch::{Effect, Event, Policy, Row, Watch, Who, newcomers};
use oomguard_core::{Bytes, Enforcement, HostPolicy, HostSample, Instant, JobId};
use oomguard_sys::held::Held;
use oomguard_sys::process::Signal;
use oomguard_sys::processes::Processes;
use oomguard_sys::reaper::Reaper;
use oomguard_sys::wait::{Interest, Poller, Signals};
use oomguard_sys::{clock, oneself};

use super::sweep::{Sweeper, Swept};
use super::{Sensors, prepare, sensors};
use crate::cli;
use crate::error::Error;
use crate::record::{Notice, Record, Roster, Told};
use crate::recording::{Tape, header};
use crate::sink::{Human, JsonLines, Sinks};

use rules::Rules;
use service::Service;

const SIGNALS: u64 = 0;
const SWEPT: u64 = 1;
/// Members that share less are not asked what: that takes time at the worst moment.
const WORTH_ASKING: Bytes = Bytes::mib(16);
/// Rounds of looking for what a dying family has started meanwhile.
const ROUNDS: u32 = 8;

/// Watches until SIGTERM or SIGINT; gives the exit code.
pub fn watch(cli: cli::Watch) -> Result<u8, Error> {
    let mut guard = Guard::new(&cli)?;
    // What is there already is no news: it is looked at before anybody is told that the guard is ready.
    guard.look(clock::now());
    guard.arm();
    guard.act_and_talk();
    guard.run()?;
    guard.sinks.finish();
    Ok(0)
}

struct Guard {
    watch: Watch,
    policy: Policy,
    sensors: Sensors,
    processes: Processes,
    rules: Rules,
    held: Held,
    /// The groups of the held family.
    groups: Vec<u32>,
    acting: bool,
    /// The oldest of its processes, as it was when it was chosen.
    leader: Option<Row>,
    reaper: Reaper,
    sweeper: Sweeper,
    signals: Signals,
    poller: Poller,
    sinks: Sinks,
    roster: Roster,
    /// The name of the present victim.
    job: JobId,
    service: Service,
    /// The process table could not be read, and this has been said.
    blind: bool,
    /// What the last scan took of a core.
    cost: Duration,
    tape: Option<Tape>,
    /// The rows of the last scan that is on record.
    before: Option<Vec<Row>>,
}

impl Guard {
    fn new(cli: &cli::Watch) -> Result<Guard, Error> {
        let fail = |what: &str, error: oomguard_sys::Error| Error::new(format!("could not {what}: {error}"));
        let mut sensors = Sensors::open()?;
        let host = policy(cli, &sensors.machine())?;
        let policy = Policy { host, grace: cli.grace, enforce: cli.enforce };
        let signals = Signals::block().map_err(|e| fail("watch for signals", e))?;
        oneself::share_one_heap();
        let reaper = Reaper::start().map_err(|e| fail("start the helper that takes memory back", e))?;
        let mut poller = Poller::new();
        poller.add(signals.fd(), Interest::Read, SIGNALS);
        let sweeper = Sweeper::new()?;
        poller.add(sweeper.fd(), Interest::Read, SWEPT);
        let mut sinks = Sinks::new();
        match cli.json {
            true => sinks.add(JsonLines::stderr()),
            false => sinks.add(Human::stderr(false)),
        };
        let tape = match &cli.record {
            Some(path) => Some(Tape::start(path, &header("watch", &sensors.machine(), Made::Watch(policy)))?),
            None => None,
        };
        if let Some(tape) = &tape {
            sinks.add(tape.clone());
        }
        let processes =
            Processes::open(std::path::Path::new("/proc")).map_err(|e| fail("look at processes", e))?;
        let rules = Rules::new(cli, processes.own_cgroup());
        Ok(Guard {
            watch: Watch::new(policy),
            policy,
            sensors,
            processes,
            rules,
            held: Held::new().map_err(|e| fail("look at processes", e))?,
            groups: Vec::with_capacity(64),
            acting: false,
            leader: None,
            reaper,
            sweeper,
            signals,
            poller,
            sinks,
            roster: Roster::new(host.reserve, host.warning),
            job: told::NOBODY,
            service: Service::from_environment(),
            blind: false,
            cost: Duration::ZERO,
            tape,
            before: None,
        })
    }

    fn arm(&mut self) {
        let host = self.sensors.machine();
        let HostPolicy { reserve, warning, .. } = self.policy.host;
        let refused = prepare::prepare()
            .into_iter()
            .filter_map(|step| Some(format!("{}: {}", step.what, step.refused?)));
        let mut notes: Vec<String> = refused.collect();
        if !self.policy.enforce {
            notes.insert(0, "dry run: nothing is ended; --enforce acts".to_owned());
        }
        if self.rules.own.is_some() {
            notes.push("not root: only processes of this user can be ended".to_owned());
        }
        if let Some(wall) = self.rules.wall() {
            let wall = String::from_utf8_lossy(wall);
            notes.push(format!("the memory limit of `{wall}` is nearest: where that is short, only what is in it can be ended"));
        }
        if let Err(why) = self.sensors.pressure() {
            notes.push(format!("no pressure (PSI), so thrashing goes unnoticed: {why:?}"));
        }
        self.tell(Notice::Armed {
            verb: "watch".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            guard_pid: std::process::id(),
            enforcement: Enforcement::WatchOnly,
            notes,
            parent: None,
            total: host.total,
            available: host.available,
            reserve,
            warning,
        });
    }

    fn run(&mut self) -> Result<(), Error> {
        self.service.ready();
        loop {
            let now = clock::now();
            if now >= self.watch.next_look() {
                self.look(now);
                self.act_and_talk();
            }
            self.service.alive(now);
            let until = self.watch.next_look();
            let ready = self.poller.wait(until).map_err(|e| Error::new(format!("could not wait: {e}")))?;
            let [signal, swept] = [SIGNALS, SWEPT].map(|token| ready.iter().any(|r| r.token == token));
            if swept {
                self.swept();
            }
            if signal && self.is_told_to_end()? {
                return Ok(());
            }
        }
    }

    fn is_told_to_end(&mut self) -> Result<bool, Error> {
        let broken = |e: oomguard_sys::Error| Error::new(format!("could not read signals: {e}"));
        let mut why = None;
        while let Some(received) = self.signals.receive().map_err(broken)? {
            why = why.or(match Signal::from_named_raw(received.signal) {
                Some(Signal::TERM) => Some("SIGTERM"),
                Some(Signal::INT) => Some("SIGINT"),
                // The terminal is gone.
                Some(Signal::HUP) if !self.signals.was_ignored(received.signal) => Some("SIGHUP"),
                _ => None,
            });
        }
        if let Some(why) = why {
            self.service.stopping();
            self.tell(Notice::Note { text: format!("the watch is over ({why})") });
        }
        Ok(why.is_some())
    }

    /// One look.
    fn look(&mut self, now: Instant) {
        let mut host = self.sensors.machine();
        host.swap_free = self.sensors.swap_room(&host);
        let remains = self.acting.then(|| self.held.remains());
        if let Some(tape) = &self.tape {
            tape.input(now, Input::Look(&host, remains));
        }
        if self.watch.look(now, &host, remains) && self.scan() {
            self.record_scan(now);
            self.watch.scan(now, self.cost, self.processes.rows());
        }
    }

    /// Only what has changed; all of it after one that could not be written.
    fn record_scan(&mut self, now: Instant) {
        let Some(tape) = &self.tape else { return };
        let rows = self.processes.rows();
        let changes = Changes { before: self.before.as_deref(), now: rows, cost: self.cost };
        if tape.input(now, Input::Scan(changes)) {
            let before = self.before.get_or_insert_default();
            before.clear();
            before.extend_from_slice(rows);
        } else {
            self.before = None;
        }
    }

    fn act_and_talk(&mut self) {
        while let Some(effect) = self.watch.poll_effect() {
            self.perform(effect);
        }
        while let Some(event) = self.watch.poll_event() {
            self.say(event);
        }
        if let Some(tape) = &self.tape {
            tape.flush();
        }
    }

    /// Whether it could be done. In a shortage what was kept of the large ones is not believed.
    fn scan(&mut self) -> bool {
        self.rules.limited(self.sensors.limited());
        let (rules, swap) = (&self.rules, self.sensors.swap_is_used());
        let begun = clock::of_this_thread();
        let scanned = self.processes.scan(self.watch.is_short(), swap, |about| rules.judge(about)).err();
        self.cost = clock::of_this_thread().since(begun);
        if let Some(error) = &scanned
            && !self.blind
        {
            self.tell(Notice::SensorUnknown { sensor: "processes".to_owned(), why: error.to_string() });
        }
        self.blind = scanned.is_some();
        !self.blind
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Hold(leader) => self.hold(leader),
            Effect::Terminate => {
                let (told, refused) = self.held.terminate();
                self.complain("terminate", told, refused);
            }
            Effect::Kill => self.kill(),
            Effect::Sweep => self.sweep(),
            Effect::Release => {
                self.held.clear();
                (self.acting, self.leader) = (false, None);
            }
        }
    }

    fn hold(&mut self, leader: Who) {
        self.held.clear();
        self.acting = true;
        let (families, rows) = (self.watch.families(), self.processes.rows());
        // When its end is told, it may be gone from the table.
        self.leader = rows.iter().find(|row| row.who == leader).copied();
        families.groups(rows, leader, &mut self.groups);
        for at in families.members(rows, leader) {
            // Who is gone need not be held.
            let row = &rows[at];
            if self.held.add(row.who).is_ok() && row.shared >= WORTH_ASKING {
                self.held.remember_shm(row.who);
            }
        }
    }

    /// Has shared memory removed that only the dead have used.
    fn sweep(&mut self) {
        let begun = self.sweeper.sweep_files(self.job, self.held.files());
        if let Err(error) = &begun {
            let (job, error) = (Some(self.job), error.to_string());
            self.tell(Notice::EffectFailed { job, effect: "sweep".to_owned(), error });
        }
        if !begun.unwrap_or(false) {
            self.all_is_swept();
        }
    }

    fn all_is_swept(&mut self) {
        if let Some(tape) = &self.tape {
            tape.input(clock::now(), Input::Swept);
        }
        self.watch.swept();
    }

    fn swept(&mut self) {
        while let Some(Swept { job, files, bytes }) = self.sweeper.heard() {
            if files > 0 {
                self.tell(Notice::ShmRemoved { job: Some(job), files, bytes });
            }
            self.all_is_swept();
        }
    }

    /// SIGKILL to all, and to what they have started between the scan and this.
    fn kill(&mut self) {
        let (mut told, mut refused) = self.held.kill(&self.reaper);
        for _ in 0..ROUNDS {
            if !self.scan() {
                break;
            }
            let held = &self.held;
            let new: Vec<Who> = newcomers(self.processes.rows(), &self.groups, |who| held.has(who)).collect();
            if new.is_empty() {
                break;
            }
            for who in new {
                let _ = self.held.add(who);
            }
            let (more, also_refused) = self.held.kill(&self.reaper);
            told += more;
            refused = refused.or(also_refused);
        }
        self.complain("kill", told, refused);
    }

    fn complain(&mut self, effect: &str, told: u32, refused: Option<oomguard_sys::Error>) {
        if let Some(error) = refused.map(|error| error.to_string()) {
            let error = format!("{error} ({told} processes have it)");
            self.tell(Notice::EffectFailed { job: Some(self.job), effect: effect.to_owned(), error });
        }
    }

    fn say(&mut self, event: Event) {
        let mut cgroup = String::new();
        if let Event::Chosen { choice, .. } = event {
            self.job = told::next(self.job);
            let leader = choice.family.leader;
            let row = self.leader.iter().chain(self.processes.rows()).find(|row| row.who == leader);
            self.roster.set(self.job, told::entry(leader, row, choice.family.usage));
            cgroup = row.map_or_else(String::new, |row| {
                String::from_utf8_lossy(self.processes.cgroup(row)).into_owned()
            });
        }
        let rows = self.leader.as_ref().map_or(self.processes.rows(), std::slice::from_ref);
        self.tell(told::told(event, self.job, rows, cgroup));
    }

    fn tell(&mut self, told: impl Into<Told>) {
        self.sinks.tell(&Record::now(clock::now(), told), &self.roster);
    }
}

/// The thresholds that were asked for, which must make sense together.
fn policy(cli: &cli::Watch, host: &HostSample) -> Result<HostPolicy, Error> {
    let default = HostPolicy::for_machine(host.total, sensors::cores());
    let reserve = cli.reserve.map_or(default.reserve, |amount| amount.of(host.total));
    let warning = cli.warning.map_or(reserve.plus(reserve), |amount| amount.of(host.total));
    if warning < reserve {
        return Err(Error::new(format!("--warning `{warning}` is below --reserve `{reserve}`")).hint(
            "people are warned before the reserve is touched: give the larger of the two to --warning",
        ));
    }
    if reserve >= host.total {
        return Err(Error::new(format!("--reserve `{reserve}` is all the memory there is ({})", host.total))
            .hint("the machine would always be short"));
    }
    Ok(HostPolicy { reserve, warning, ..default })
}
