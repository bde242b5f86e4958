"""What happens to the guest, and what guards it. Plain data: which commands run when, and what a good guard does.

A guest has 973 MiB, some 860 of them available; oomguard's reserve there is an eighth (121 MiB), its warning a quarter.
`hog` is guilty, `steady` is an innocent job of the same guard, `canary` and `bystander` are not the guard's at all.
"""

from __future__ import annotations

from dataclasses import dataclass

PARENT = "/oomguard-test-survival"
ROOT = f"/sys/fs/cgroup{PARENT}"
TOTAL_KIB = 996600
RESERVE_KIB = TOTAL_KIB // 8
# Of `oomguard test` and of earlyoom: they act when more than 90 % of RAM are used.
TEST_RESERVE_KIB = TOTAL_KIB // 10
# What the innocent worker of `up` holds, and the innocent test file.
STEADY_PERCENT = 5
# How long the innocent test file takes: longer than it takes the guilty ones to fill the machine.
STEADY_MS = 6000
GO = "touch /run/go"


@dataclass(frozen=True)
class Scenario:
    """One way of running out of memory. Times are the guest's, in milliseconds from the guard's start."""

    note: str
    hog: str
    # "end": the guilty job has to go; "keep": nobody may be touched.
    want: str = "end"
    limit: str = "60%"
    last: int = 15_000
    bystander: int = 0
    swap: int = 0
    swap_limit: str = "0"
    # Disks are what it is about: the guest idles in this machine's time, see guest.py.
    waits_for_disk: bool = False
    # Guilty jobs under `up`, and what each of them does; a single command starts them all itself.
    workers: int = 1
    each: str = ""
    worker_limit: str = ""
    # How many jobs may be ended.
    victims: int = 1
    # {leaf}: the cgroup of the guilty job, as a pattern; {jobs}: the one around all; {log}: the folder of logs and
    # state; {again}: the guard.
    acts: tuple[tuple[int, str], ...] = ()
    guards: tuple[str, ...] = ("none", "run", "reserve", "up", "watch", "earlyoom", "test", "watchdog")
    # How old a job may get, by the guard's own clock.
    age: str = "60m"
    # The guard is killed on purpose: then the kernel's wall around all jobs is what holds, unless there is an heir.
    guard_dies: bool = False
    heir: bool = False
    # How a test file ends by itself, where it may: without, only somebody else ends it.
    passes: str = ""
    # What is run in a shell instead of `hog`, under `up` without an innocent worker; and what becomes of it when it
    # ends.
    shell: str = ""
    restart: str = "never"
    # Logs and state on a small disk that fills up.
    small_disk: bool = False


SCENARIOS = {
    "spike": Scenario("one process, as fast as it can touch pages of 4 KiB", "grow 0 150%"),
    "spike-thp": Scenario("the same with huge pages", "-t grow 0 150%"),
    "several": Scenario(
        "four processes at once; under `up`, `watch` and `test` three jobs of which two fit",
        "-n 4 grow 0 60%",
        workers=3, each="grow 100 35%", worker_limit="45%", passes="-e 5000",
    ),
    "fork-many": Scenario(
        "30 children of 6 %, 50 ms apart, beside an innocent process of 20 %",
        "-n 30 -g 50 grow 15 6%",
        last=25_000, bystander=195,
    ),
    "leak": Scenario(
        "20 MiB/s to four times the limit; the machine never gets short",
        "grow 20 400", limit="100MiB", last=25_000, guards=("run", "up", "test"),
    ),
    "shm": Scenario(
        "a file in /dev/shm, which no process owns and which outlives its writer", "shm 100 98%", last=20_000
    ),
    "page-cache": Scenario(
        "512 MiB of files rewritten and read again while 45 % is held: nobody may be touched",
        "files /disk 45%",
        want="keep", last=12_000, waits_for_disk=True, passes="-e 8000",
    ),
    "swap-thrash": Scenario(
        "a working set of 125 %, with swap for 50 %", "thrash 125%",
        swap=486, waits_for_disk=True, swap_limit="50%", limit="none",
        guards=("none", "reserve", "up", "watch", "earlyoom", "watchdog"), worker_limit="none", last=20_000,
    ),
    "swap-full": Scenario(
        "more than memory and swap together", "thrash 220%",
        swap=486, waits_for_disk=True, swap_limit="100%", limit="none",
        guards=("none", "reserve", "up", "watch", "earlyoom", "watchdog"), worker_limit="none", last=20_000,
    ),
    "mlocked": Scenario("200 MiB/s that cannot be reclaimed", "-l grow 200 150%"),
    "deaf": Scenario("100 MiB/s, and SIGTERM is ignored", "-i grow 100 150%", last=20_000),
    "raised": Scenario(
        "the job's limit is lifted from outside while a bystander holds 40 %, then it spikes",
        "-w 20% grow 0 150%", limit="30%", bystander=390,
        acts=((2500, "for c in {leaf}; do echo max > $c/memory.max; done; " + GO),), guards=("run", "up", "test"),
    ),
    "guard-killed": Scenario(
        "the guard gets SIGKILL, then the job spikes: the kernel's limits outlive the guard",
        "-w 20% grow 0 150%", acts=((2000, "killall -9 oomguard"), (2500, GO)), guard_dies=True,
        guards=("run", "reserve", "up", "test", "watchdog"),
    ),
    "kept": Scenario(
        "of `test` only the guard gets SIGKILL, and its keeper ends every file that runs",
        "-w 20% grow 0 150%", acts=((2000, "kill -9 $(cat /run/guard.pid)"),), guard_dies=True, workers=3, victims=3,
        guards=("test", "watchdog"),
    ),
    "guard-replaced": Scenario(
        "the guard gets SIGKILL, another `up` takes over, then a job without a limit spikes",
        "-w 20% grow 0 150%", limit="none", worker_limit="none", guard_dies=True, heir=True, guards=("up",),
        acts=((2000, "killall -9 oomguard"), (2500, "{again}"), (4500, GO)),
    ),
    "reloaded": Scenario(
        "`oomguard reload` lifts the job's limit while a bystander holds 40 %, then it spikes",
        "-w 20% grow 0 150%", limit="30%", bystander=390, guards=("up",),
        acts=((2000, "cd /cell; sed -i s/30%/none/ oomguard.toml && oomguard reload"), (3500, GO)),
    ),
    "removed": Scenario(
        "while the worker waits for its restart, the cgroups of all jobs are removed; then it spikes",
        "", shell="test -e /run/go && exec /bin/hog grow 0 150%; sleep 2; exit 1", restart="on-failure", guards=("up",),
        acts=((2500, f"rmdir {ROOT}/* {ROOT}; ls -d {ROOT}; " + GO),),
    ),
    "disk-full": Scenario(
        "no room for logs, state and report from the first second on, then a spike",
        "-w 20% grow 0 150%", small_disk=True, acts=((2000, "cat /dev/zero > {log}/fill; true"), (2500, GO)),
        guards=("run", "reserve", "up", "test", "watchdog"),
    ),
    "clock-jump": Scenario(
        "the wall clock jumps by a year, and back: no time limit and no age is due; then a spike",
        "-w 20% grow 0 150%",
        acts=((1500, "date -s '2031-01-01 00:00:00'"), (2500, "date -s '2020-01-01 00:00:00'"), (3500, GO)),
        guards=("run", "reserve", "up", "watch", "test", "watchdog"),
    ),
    "suspend": Scenario(
        "the machine sleeps (S3) for longer than the time limit and the age of a job, which are not due; then a spike",
        "-w 20% grow 0 150%", age="18s",
        acts=((1500, "echo +20 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state"), (3500, GO)),
    ),
    "fork-bomb": Scenario(
        "every process takes 12 MiB and forks, up to pids.max of 100",
        "-w 0 bomb 12", acts=((2000, "echo 100 > {jobs}/pids.max"), (2500, GO)),
        guards=("run", "reserve", "up", "watch", "test", "watchdog"),
    ),
    "guarded": Scenario(
        "the job of another oomguard spikes under the eyes of `watch`: that one ends it, and nobody else",
        "", shell="/bin/oomguard run --json -- /bin/hog -w 20% grow 0 150%", acts=((2500, GO),), guards=("watch",),
    ),
    "unplugged": Scenario(
        "the memory controller is taken away from the jobs' cgroups, then a spike",
        "-w 20% grow 100 150%", acts=((2000, f"echo -memory > {ROOT}/cgroup.subtree_control"), (2500, GO)),
        guards=("run", "reserve", "up", "test", "watchdog"), last=20_000,
    ),
}  # fmt: skip

# `none` shows what the machine does alone.
GUARDS = {
    "none": "nobody",
    "run": "oomguard run --memory-limit LIMIT",
    "reserve": "oomguard run, no limit: only the machine's reserve",
    "up": "oomguard up, the guilty workers beside an innocent one",
    "watch": "oomguard watch --enforce; the guilty jobs are anybody's, among the bystanders",
    "earlyoom": "earlyoom as Debian has it, instead of `watch`",
    "test": "oomguard test -n 4 --memory-limit LIMIT, guilty files beside an innocent one",
    "watchdog": "oomguard test -n 4, no limit: only the watchdog, at 90 % of RAM",
}
# Other people's guards, for comparing: one that fails does not fail the run.
PEERS = ("earlyoom",)
# Who looks after what it did not start.
OUTSIDE = ("watch", *PEERS)
# What runs a suite: files that are started as its tests.
SUITES = ("test", "watchdog")
# When `watch` has looked around, the guilty jobs begin.
BEGIN_MS = 500


def files(scenario: Scenario, guard: str) -> dict[str, str]:
    """The files of one cell below /cell: the witness's plan, and a configuration where the guard has one."""
    log = "/small" if scenario.small_disk else "/disk/log"
    prepare = f"mkdir -p {log}; "
    if scenario.small_disk:
        prepare += f"mount -t tmpfs -o size=256k tmpfs {log}; "
    leaf = f"{ROOT}/" + {"up": "*guilty*", "test": "test-*"}.get(guard, "run-*")
    jobs = "/sys/fs/cgroup/guilty-1" if guard in OUTSIDE else ROOT
    exports = f"export OOMGUARD_CGROUP_PARENT={PARENT} HOME={log}"
    told = subject(scenario, guard, log)
    if guard in SUITES:
        # Once before, in which no file takes anything: so the guard believes that all of them fit together.
        prepare += f"{exports}; {told} > /run/before.log 2>&1; touch /run/again; "
    words = {"{leaf}": leaf, "{jobs}": jobs, "{log}": log, "{again}": f"{exports}; exec {told}"}
    lines = [
        f"subject {prepare}{exports}; echo $$ > /run/guard.pid; exec {told}",
        f"last {scenario.last + (15_000 if guard in SUITES else 0)}",
        f"tail {8000 if guard in SUITES else 6000 if scenario.guard_dies else 1500}",
        f"mark {TEST_RESERVE_KIB if guard in (*SUITES, *PEERS) else RESERVE_KIB}",
        "log subject /run/subject.log", "log acts /run/acts.log", "log people /run/people.log",
    ]  # fmt: skip
    if guard == "up":
        lines += [f"log events {log}/logs/events.jsonl"]
    if scenario.bystander:
        lines.append(f"bystander {scenario.bystander}")
    if scenario.swap:
        lines.append("swap disk")
    for at, command in (*plainly(scenario, guard), *scenario.acts):
        for word, meant in words.items():
            command = command.replace(word, meant)
        lines.append(f"at {at} {command}")
    made = {"plan": "\n".join(lines) + "\n"}
    if guard == "up":
        made["oomguard.toml"] = configuration(scenario, log)
    if guard in SUITES:
        made |= {f"tests/test_{name}.py": text for name, text in suite(scenario).items()}
    return made


def suite(scenario: Scenario) -> dict[str, str]:
    """The files of a suite, which a shell runs: all that they have of tests is their names. Beside the guilty an
    innocent one, where nobody has to go with the guard."""
    hog = scenario.each or scenario.hog
    commands = {f"guilty_{n}": f"/bin/hog {scenario.passes} {hog}" for n in range(1, scenario.workers + 1)}
    if not scenario.guard_dies:
        commands["innocent"] = f"/bin/steady -e {STEADY_MS} grow 100 {STEADY_PERCENT}%"
    return {name: f"test -e /run/again || exit 0\nexec {command}\n" for name, command in commands.items()}


def plainly(scenario: Scenario, guard: str) -> list[tuple[int, str]]:
    """The guilty jobs where the guard does not start them. They get a cgroup of their own only where one is needed: to
    be counted, or to be limited in number."""
    if guard not in OUTSIDE:
        return []
    apart = scenario.workers > 1 or any("{jobs}" in command for _, command in scenario.acts)
    enter = "d=/sys/fs/cgroup/guilty-{n}; mkdir $d; echo $$ > $d/cgroup.procs; " if apart else ""
    hog = (
        f"export OOMGUARD_CGROUP_PARENT={PARENT}; exec {scenario.shell or f'/bin/hog {scenario.each or scenario.hog}'}"
    )
    return [(BEGIN_MS, enter.replace("{n}", str(n)) + hog) for n in range(1, scenario.workers + 1)]


def subject(scenario: Scenario, guard: str, log: str) -> str:
    """What runs: the guard with its job, or the job alone."""
    hog = f"/bin/hog {scenario.hog}"
    if guard == "none":
        return hog
    if guard == "earlyoom":
        return "/bin/earlyoom -r 3600"
    if guard == "up":
        return "/bin/oomguard up -c /cell/oomguard.toml"
    if guard == "watch":
        return "/bin/oomguard watch --enforce --json --grace 3s"
    if guard in SUITES:
        limited = f"--memory-limit {scenario.worker_limit or scenario.limit}"
        return (
            f"/bin/oomguard test --command '/bin/sh {{file}}' -n 4 --json --report {log}/report.json --timeout "
            f"{scenario.age} --require cgroup2 {limited if guard == 'test' else '--disable-memory-limit'} /cell/tests"
        )
    limit = f"--memory-limit {scenario.limit} " if guard == "run" else ""
    return (
        f"/bin/oomguard run --json --report {log}/report.json --timeout {scenario.age} --require cgroup2 "
        f"--swap-limit {scenario.swap_limit} {limit}-- {hog}"
    )


def configuration(scenario: Scenario, log: str) -> str:
    """`oomguard.toml`: guilty workers that are not started again, and an innocent one that lives on."""
    words = f"/bin/hog {scenario.each or scenario.hog}".split()
    if scenario.shell:
        words = ["/bin/sh", "-c", scenario.shell]
    command = ", ".join(f'"{word}"' for word in words)
    steady = f"""
[pool.steady]
command = ["/bin/steady", "grow", "100", "{STEADY_PERCENT}%"]
count = 1
memory_limit = "20%"
max_age = "60m"
grace = "3s"
restart = "never"
"""
    guilty = f"""\
state_dir = "{log}/state"

[memory]
swap_limit = "{scenario.swap_limit}"
require = "cgroup2"

[log]
dir = "{log}/logs"

[pool.guilty]
command = [{command}]
count = {scenario.workers}
memory_limit = "{scenario.worker_limit or scenario.limit}"
max_age = "{scenario.age}"
grace = "3s"
prune_patience = "1s"
restart = "{scenario.restart}"
"""
    # Alone, so that the cgroup around all jobs is empty while it waits.
    return guilty if scenario.shell else guilty + steady
