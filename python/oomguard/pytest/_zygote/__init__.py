"""Forks a process per test file from one that has imported everything already: ``python -m oomguard.pytest._zygote``.

Started by ``oomguard test``, which talks to it over the ``SOCK_SEQPACKET`` socket ``OOMGUARD_ZYGOTE_FD``: one JSON
object a packet, 64 KiB at most. Protocol, version 1. The runner's first packet::

    {"v":1,"args":["-q"],"paths":["tests"],"preload":["numpy"],"depth":"auto"}

``args`` are the user's for pytest, ``paths`` what the user named; ``depth`` is ``auto``, ``collection`` or ``imports``.
The answer is one of::

    {"event":"ready","depth":"imports","why":"...","python":"3.11.9","pytest":"9.2.0","rootdir":null,"pid":1,
     "preloaded":["numpy"],"passed_over":[["jax","is not safe to fork"]],"rss":1}
    {"event":"unusable","why":"...","output":"...","exitstatus":4}

``why`` says why it is not ``collection``, else null. ``output`` is what pytest wrote, and ``exitstatus`` what it ended
with, null where it did not get that far. Death without an answer: Python cannot import pytest or oomguard, as stderr
says.

Then, as often as wanted, with descriptors for stdout, stderr, the pipe of :mod:`oomguard.pytest._heartbeat`, the file
of :mod:`oomguard.pytest._report_file`, and ``joins`` open ``cgroup.procs``, in this order::

    {"op":"fork","id":7,"args":["tests/test_a.py"],"env":{"K":"v","GONE":null},"oom_score_adj":500,
     "rlimit_data":null,"joins":2}

which is answered by one of the first two, and ``forked`` later by ``exited`` (``code``, or ``signal``; times in
seconds, ``maxrss`` in bytes)::

    {"event":"forked","id":7,"pid":123}                     with a pidfd
    {"event":"refused","id":7,"why":"a thread was started: ..."}
    {"event":"exited","id":7,"code":1,"user":0.01,"system":0.01,"maxrss":1}

A child can be made before it is known for what. It enters its cgroups, which takes the kernel 10 to 20 ms each time
somebody else has not just done the same, and stands by there. With only the ``joins`` as descriptors::

    {"op":"stand by","standby":6,"oom_score_adj":500,"joins":2}

is answered by nothing, or by ``refused`` with its ``standby``. A fork with ``"standby":6`` then is that child, which
joins nothing more; if it is not there any more, another is forked. One that has no order dies with the zygote.

The code is pytest's; 125 says that the child could not enter its cgroups or limits and ran nothing (its stderr has the
reason). At ``collection`` the ``args`` of a fork are paths and node ids; options there are refused, as they would come
too late. The end of the socket ends the zygote: it kills what still runs and leaves without a word to pytest or atexit.
Children of a zygote that is itself killed go on.

Depths, and what the children share with each other:

- ``collection``: the fork is inside ``pytest_collection`` of one long session. Shared: modules, plugins and initial
  ``conftest.py`` files and what they did at import and in ``pytest_configure``; options and ini values; ``tmp_path``'s
  settings, not its folders; log files that are open for writing. A file that an argument's folder contains is collected
  from that folder with everything else ignored, so ``collect_ignore`` and ``python_files`` count as they do for the
  whole folder.
- ``imports``: the fork is before pytest reads a thing. Shared: pytest's own, standard library and third-party modules,
  installed plugins among them; nothing is configured yet.

At both depths children share the seed of hashes and what libraries have read from the environment when they were
imported, so caps on threads belong into the zygote's environment. ``gc.get_objects()`` does not list what is shared.

``auto`` goes to ``imports`` where sharing would show: see :mod:`oomguard.pytest._zygote._depth`. What is never shared:
output, capture's files, positions in files open for reading, random numbers (unless a conftest has set a seed, which
then holds), process group, signal handling.

Each test file's process writes ``--last-failed``'s memory only for its own tests: see
:mod:`oomguard.pytest._last_failed`.
"""
