# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_oomguard_global_optspecs
    string join \n h/help V/version
end

function __fish_oomguard_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_oomguard_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_oomguard_using_subcommand
    set -l cmd (__fish_oomguard_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c oomguard -n "__fish_oomguard_needs_command" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_needs_command" -s V -l version -d 'Print version'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "run" -d 'Run one command, its whole process tree held to a memory limit'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "test" -d 'Run a test suite file by file, each file\'s process tree held to a memory limit'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "up" -d 'Keep the pools of workers of oomguard.toml running'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "watch" -d 'Guard the whole machine: end the family of processes that took the memory (dry run unless --enforce)'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "install" -d 'Make a systemd service of `watch`; shows the unit unless told to write it'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "init" -d 'Write a commented oomguard.toml to start from'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "check" -d 'Is there room? Exits with 0, or with 75 if not'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "doctor" -d 'What can this machine enforce and see, with the proof and the remedy'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "status" -d 'How the workers of a running `up` are'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "reload" -d 'Make a running `up` read its configuration again'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "restart" -d 'Restart workers of a running `up`, one after another'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "stop" -d 'End a running `up` and its workers'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "keep" -d 'End what a killed `test` has left (started by `test` itself)'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "replay" -d 'Tell a recorded run again, as this version decides it or under other limits'
complete -c oomguard -n "__fish_oomguard_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -s m -l memory-limit -d 'What the whole process tree may use: 8GiB, 512MiB, 60% (of all memory)' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l vram-limit -d 'What it may hold of any one GPU: 4GiB, 50% (of the GPU\'s memory); torch, JAX and TensorFlow are told, too' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l reserve -d 'Available memory that must never be used [default: 2GiB; an eighth of small machines]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l vram-reserve -d 'What must be left of every GPU that it holds memory of [default: GPUs are not watched]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l swap-limit -d 'Swap that the tree may use' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l timeout -d 'End the command after this time (exit code 124)' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l grace -d 'From SIGTERM to SIGKILL' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l on-limit -d 'What ends when the kernel kills at the limit' -r -f -a "job\t'the whole job ends'
process\t'only the process that the kernel chose'"
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l require -d 'Refuse to start unless the tree is really held by this' -r -f -a "cgroup2\t'cgroup v2 `memory.max`'
cgroup\t'cgroup v1 or v2'
rlimit\t'at least a limit per process'"
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l cgroup-parent -d 'Put jobs under this cgroup (relative to the memory hierarchy\'s root) instead of one found by probing' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l report -d 'Write what happened to FILE, as one JSON document' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l record -d 'Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l best-effort -d 'Start even if no cgroup can hold the tree; the guard then watches it'
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -l json -d 'Say what happens on stderr as JSON, one event a line'
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -s v -l verbose -d 'Say also what is not a problem'
complete -c oomguard -n "__fish_oomguard_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s n -l jobs -d 'Files that run together; `auto`: one a core, as far as memory reaches [default: 1]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l isolation -d 'How files are kept apart [default: auto]' -r -f -a "auto\t'as deep a fork as is safe, else a new process'
fork\t'a fork, or nothing'
spawn\t'a new process'"
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l command -d 'Run this for each file instead of pytest; `{file}` is the file (no shell)' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l python -d 'The interpreter [default: the active environment\'s, else the one beside oomguard]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l memory-limit -d 'What the process tree of one file may use [default: 8GiB]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l vram-limit -d 'GPU memory that one file may use' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l ram-preflight -d 'Start nothing if more RAM than this is used [default: 70%]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l vram-preflight -d 'Start nothing if more of a GPU\'s memory than this is used [default: 80%]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l ram-target -d 'Start a further file only below this [default: 70%]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l wait -d '... and wait so long for it before giving up (exit code 75) [default: 60s]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l reserve -d 'Available memory that must never be used; the file that grows goes [default: 10%: RAM > 90%]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l timeout -d 'A file that takes longer is ended' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l gpu -d 'How GPU files share a GPU [default: serial]' -r -f -a "serial\t'one at a time'
packed\t'together, as long as what each used before fits'"
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l cgroup-parent -d 'Put jobs under this cgroup (relative to the memory hierarchy\'s root) instead of one found by probing' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l require -d 'Refuse to start unless files are really held by this' -r -f -a "cgroup2\t'cgroup v2 `memory.max`'
cgroup\t'cgroup v1 or v2'
rlimit\t'at least a limit per process'"
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s k -d 'Only tests that match, as in pytest' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s m -d 'Only tests with these markers, as in pytest' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l shard -l partition -d 'The m-th of n parts, balanced by recorded time' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l maxfail -d 'Stop after so many failed tests' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l retries -d 'Run a file again that did not pass, so often (one that memory killed is run once more in any case)' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l retry-on -d '... after these [default: crash,timeout,failure; memory is run again once in any case]' -r -f -a "memory\t'it was ended because of memory'
crash\t'a signal, or an exit that is none of pytest\'s'
timeout\t'it ran into its time limit'
failure\t'a test failed'"
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l junitxml -d 'Write JUnit\'s XML' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l report -d 'Write everything as one JSON document, with the memory of each test' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l memory-profile -d 'Where the lines before and after each file go [default: memory_profile.log in the state directory]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l disable-memory-limit -d 'Let files use what they like (NOT RECOMMENDED: one file can then fill the machine)'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l disable-watchdog -d 'Do not end the file that grows when the machine is short (NOT RECOMMENDED)'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l last-failed -l lf -d 'Only what failed last time (all, if nothing did)'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l list -d 'Say which files there are, and start nothing'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l dry-run -d 'Say what would be run, with which limits, and start nothing'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s x -l exitfirst -l fail-fast -d 'Stop after the first failure'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l no-memory-profile -d 'Write no such lines'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -l json -d 'Say what happens on stdout as JSON, one event a line'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s q -l quiet -d 'Say only what failed, and the summary'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s v -l verbose -d 'Show every file\'s line and output'
complete -c oomguard -n "__fish_oomguard_using_subcommand test" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -s c -l config -d 'The configuration [default: oomguard.toml or pyproject.toml here or above]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -l cgroup-parent -d 'Put jobs under this cgroup (relative to the memory hierarchy\'s root) instead of one found by probing' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -l record -d 'Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -l json -d 'Say what happens on stderr as JSON, one event a line'
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -s q -l quiet -d 'Say nothing on the terminal; the logs are written all the same'
complete -c oomguard -n "__fish_oomguard_using_subcommand up" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l reserve -d 'Available memory that must never be used [default: 2GiB; an eighth of small machines]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l warning -d 'Below this much available memory look closely [default: twice the reserve]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l grace -d 'From SIGTERM to SIGKILL, if memory lasts so long' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l prefer -d 'End these before all others' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l avoid -d 'End these only when no other can help' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l only -d 'Never end anybody but these' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l record -d 'Write everything that the guard sees to FILE, for `oomguard replay` (an older one is kept as FILE.1)' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l enforce -d 'Act: SIGTERM, grace, SIGKILL; without it only what would be done is said'
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -l json -d 'Say what happens on stderr as JSON, one event a line'
complete -c oomguard -n "__fish_oomguard_using_subcommand watch" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand install" -l system -d 'For the machine: /etc/systemd/system'
complete -c oomguard -n "__fish_oomguard_using_subcommand install" -l user -d 'For this user: ~/.config/systemd/user'
complete -c oomguard -n "__fish_oomguard_using_subcommand install" -l yes -d 'Write it'
complete -c oomguard -n "__fish_oomguard_using_subcommand install" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand init" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand check" -l max-ram -d 'Refuse if more than this share of memory is used' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand check" -l min-available -d 'Refuse if less than this is available' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand check" -l max-vram -d 'Refuse if more than this share of a GPU\'s memory is used, or if that cannot be known [default: not looked at]' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand check" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand check" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand doctor" -l cgroup-parent -d 'Put jobs under this cgroup (relative to the memory hierarchy\'s root) instead of one found by probing' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand doctor" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand status" -s c -l config -d 'The configuration [default: oomguard.toml or pyproject.toml here or above]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand status" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand status" -s w -l watch -d 'Show it again every two seconds, until Ctrl-C'
complete -c oomguard -n "__fish_oomguard_using_subcommand status" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand reload" -s c -l config -d 'The configuration [default: oomguard.toml or pyproject.toml here or above]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand reload" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand reload" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand restart" -s c -l config -d 'The configuration [default: oomguard.toml or pyproject.toml here or above]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand restart" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand restart" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand stop" -s c -l config -d 'The configuration [default: oomguard.toml or pyproject.toml here or above]' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand stop" -l now -d 'Without SIGTERM and grace'
complete -c oomguard -n "__fish_oomguard_using_subcommand stop" -l json -d 'One JSON object on stdout'
complete -c oomguard -n "__fish_oomguard_using_subcommand stop" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand keep" -l cgroup-parent -d 'Put jobs under this cgroup (relative to the memory hierarchy\'s root) instead of one found by probing' -r -F
complete -c oomguard -n "__fish_oomguard_using_subcommand keep" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l until -d 'Stop this long after the recording began' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l reserve -d 'What if so much available memory had been the reserve?' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -s m -l memory-limit -d 'What if every job had had this limit?' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l vram-limit -d 'What if every job had had this limit on each GPU?' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l grace -d 'What if there had been so much time from SIGTERM to SIGKILL?' -r
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l json -d 'One JSON object a line, as the run itself wrote them'
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -l diff -d 'Only what differs: `-` the run told then, `+` is told now'
complete -c oomguard -n "__fish_oomguard_using_subcommand replay" -s h -l help -d 'Print help'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "run" -d 'Run one command, its whole process tree held to a memory limit'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "test" -d 'Run a test suite file by file, each file\'s process tree held to a memory limit'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "up" -d 'Keep the pools of workers of oomguard.toml running'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "watch" -d 'Guard the whole machine: end the family of processes that took the memory (dry run unless --enforce)'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "install" -d 'Make a systemd service of `watch`; shows the unit unless told to write it'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "init" -d 'Write a commented oomguard.toml to start from'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "check" -d 'Is there room? Exits with 0, or with 75 if not'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "doctor" -d 'What can this machine enforce and see, with the proof and the remedy'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "status" -d 'How the workers of a running `up` are'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "reload" -d 'Make a running `up` read its configuration again'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "restart" -d 'Restart workers of a running `up`, one after another'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "stop" -d 'End a running `up` and its workers'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "keep" -d 'End what a killed `test` has left (started by `test` itself)'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "replay" -d 'Tell a recorded run again, as this version decides it or under other limits'
complete -c oomguard -n "__fish_oomguard_using_subcommand help; and not __fish_seen_subcommand_from run test up watch install init check doctor status reload restart stop keep replay help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
