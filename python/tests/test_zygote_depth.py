"""How deep the zygote forks, what it says why, and what it imports."""

from __future__ import annotations

import sys
import textwrap

import pytest
from absence import needs
from inner_pytest import environment


def why(started):
    """Of a zygote that fell back."""
    assert started.ready["event"] == "ready", started.ready
    assert started.ready["depth"] == "imports", started.ready
    return started.ready["why"]


@pytest.fixture
def conftest(inner):
    """Writes a conftest.py, and a test that passes."""

    def write(text):
        inner.write(conftest=textwrap.dedent(text), test_a="def test_a(): pass")

    return write


def test_as_deep_as_can_be(inner, zygote):
    inner.write(conftest="", test_a="def test_a(): pass")
    started = zygote()
    assert (started.ready["depth"], started.ready["why"]) == ("collection", None)
    assert started.ready["rootdir"] == str(inner.folder)
    assert started.ready["pytest"] == pytest.__version__
    assert started.ready["pid"] == started.process.pid
    assert started.ready["rss"] > 1 << 20
    assert started.run("test_a.py").code == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='beat').start()",
            "a thread was started: `beat`",
        ),
        ("def pytest_sessionstart(): pass", "`conftest.py` implements pytest_sessionstart"),
        ("def pytest_unconfigure(): pass", "`conftest.py` implements pytest_unconfigure"),
        ("import socket\nkept = socket.socket()", "a socket is open (descriptor "),
        ("import os\nkept = os.pipe()", "a pipe is open (descriptor "),
        ("import select\nkept = select.epoll()", "something that no child can have its own of is open (descriptor "),
        ("import subprocess\nkept = subprocess.Popen(['sleep', '1000'])", "a process was started: "),
        (
            "import tempfile\nkept = tempfile.TemporaryDirectory()",
            "`conftest.py` registers something that runs at exit",
        ),
        ("import atexit\natexit.register(print)", "`conftest.py` registers something that runs at exit"),
        (
            "import sys, types\nsys.modules['jax'] = types.ModuleType('jax')",
            "`jax` was imported, which is not safe to fork",
        ),
    ],
    ids=["thread", "sessionstart", "unconfigure", "socket", "pipe", "epoll", "process", "temporary", "atexit", "jax"],
)
def test_what_a_conftest_does_is_not_shared(conftest, zygote, text, told):
    conftest(text)
    started = zygote()
    assert why(started).startswith(told)
    child = started.run("test_a.py")
    assert child.code == 0, child


@pytest.mark.parametrize(
    "text",
    [
        "import atexit, concurrent.futures.thread, multiprocessing.util, weakref",
        "kept = open(__file__)",
        "kept = open('log', 'w')",
        "import tempfile\nkept = tempfile.TemporaryFile()",
        "def pytest_configure(config): config.addinivalue_line('markers', 'slow: slow')",
        "def pytest_sessionfinish(): print('FINISH')",
    ],
    ids=["library", "reading", "log", "unlinked", "configure", "sessionfinish"],
)
def test_what_may_be_shared_is(conftest, zygote, text):
    conftest(text)
    started = zygote()
    assert started.ready["depth"] == "collection", started.ready
    assert started.run("test_a.py").code == 0


def test_a_plugin_of_the_users_counts_like_a_conftest(inner, zygote):
    inner.write(mine="def pytest_sessionstart(): pass", test_a="def test_a(): pass")
    assert why(zygote("-p", "mine")) == "`mine.py` implements pytest_sessionstart"


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--basetemp=there", "--basetemp is given, and each file needs its own"),
        ("--cov=here", "--cov is given, and coverage must start in each file's process"),
        ("-n2", "pytest-xdist is active (-n)"),
    ],
)
def test_options_that_each_file_needs_for_itself(inner, zygote, option, told):
    if option == "-n2":
        needs("xdist")
    if option == "--cov=here":
        needs("pytest_cov")
    inner.write(test_a="def test_a(tmp_path): pass")
    assert why(zygote(option)) == told


def test_asked_for_deeply_the_user_is_believed_unless_it_is_unsafe(conftest, zygote):
    conftest("def pytest_sessionstart(): pass")
    assert zygote(depth="collection").ready["event"] == "ready"
    conftest("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='beat').start()")
    ready = zygote(depth="collection").ready
    assert (ready["event"], ready["why"]) == ("unusable", "a thread was started: `beat`")


def test_positions_in_open_files_are_each_childs_own(conftest, inner, zygote):
    conftest(
        "import tempfile\nread = open(__file__)\nkept = tempfile.TemporaryFile()\nkept.write(b'abc')\nkept.seek(1)"
    )
    inner.write(
        test_a="import conftest\ndef test_a():\n    assert conftest.read.read().startswith('import tempfile')\n"
        "    assert conftest.kept.read() == b'bc'\n    conftest.kept.write(b'more')"
    )
    started = zygote()
    assert started.ready["depth"] == "collection"
    assert [started.run("test_a.py").code for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("write", "arguments", "code", "told"),
    [
        ({}, ("--nonsense",), 4, "unrecognized arguments: --nonsense"),
        ({"conftest": "raise ValueError('broken')"}, (), 4, "ValueError: broken"),
        ({"conftest": "import pytest\npytest.exit('no', 9)"}, (), None, "no"),
        ({}, ("--version",), 0, "pytest "),
        ({}, ("-p", "nothing_there"), None, "nothing_there"),
    ],
    ids=["option", "conftest", "exit", "version", "plugin"],
)
def test_a_configuration_that_fails_is_told_with_its_words(inner, zygote, write, arguments, code, told):
    inner.write(test_a="def test_a(): pass", **write)
    started = zygote(*arguments)
    ready = started.ready
    assert ready["event"] == "unusable", ready
    assert told in ready["output"]
    fresh = inner.run(*arguments, "test_a.py", plugin=False)
    assert ready["exitstatus"] == fresh.code
    assert code in (None, fresh.code)
    assert started.close() == 1


def test_ignored_files_are_ignored_as_for_the_whole_folder(inner, zygote):
    inner.write(
        conftest="collect_ignore = ['test_a.py']", test_a="def test_a(): assert 0", test_b="def test_b(): pass",
        other="def test_c(): assert 0",
    )  # fmt: skip
    started = zygote()
    assert [started.run(name).code for name in ("test_a.py", "other.py", "test_b.py")] == [5, 5, 0]
    named = zygote(paths=["test_a.py", "other.py"])
    assert [named.run(name).code for name in ("test_a.py", "other.py")] == [1, 1], "as pytest, if they are named"


def test_several_folders_and_files_are_named(inner, zygote):
    """Each file is looked for only where it is; one that is named itself need not be called like a test."""
    for name in ("one/test_a.py", "one/deep/test_a.py", "two/test_b.py", "two/named.py", "test_c.py"):
        (inner.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (inner.folder / name).write_text("def test(): pass")
    named = ("one/deep", "two", "one", "two/named.py", "test_c.py")
    started = zygote(paths=named)
    assert started.ready["depth"] == "collection"
    for name in ("one/test_a.py", "one/deep/test_a.py", "two/test_b.py", "two/named.py", "test_c.py"):
        child = started.run(name)
        assert (child.code, "1 passed" in child.stdout) == (0, True), child


def test_a_conftest_that_changes_the_folder(inner, zygote):
    inner.write(conftest="import os\nos.chdir('/')", test_a="import os\ndef test_a(): assert os.getcwd() == '/'")
    started = zygote()
    assert started.ready["depth"] == "collection"
    for name in ("test_a.py", "./test_a.py", str(inner.folder / "test_a.py"), "test_a.py::test_a"):
        assert started.run(name).outcomes() == {"test_a.py::test_a": "passed"}


def test_packages_and_folders_of_the_same_names(inner, zygote):
    for folder in ("one", "two"):
        (inner.folder / "tests" / folder).mkdir(parents=True)
        inner.write(**{f"tests/{folder}/__init__": "", f"tests/{folder}/conftest": f"here = '{folder}'"})
        inner.write(
            **{f"tests/{folder}/test_a": f"from . import conftest\ndef test_a(): assert conftest.here == '{folder}'"}
        )
    inner.write(**{"tests/__init__": "", "tests/conftest": ""})
    inner.ini()
    started = zygote(paths=["tests"])
    for folder in ("one", "two"):
        assert started.run(f"tests/{folder}/test_a.py").outcomes() == {f"tests/{folder}/test_a.py::test_a": "passed"}


@pytest.fixture
def installed(inner):
    """Writes modules into a folder that counts as one of the interpreter's own; gives the environment for that."""
    folder = inner.folder / "env" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(
        f"import site\nfirst = site.getsitepackages\nsite.getsitepackages = lambda: [{str(folder)!r}, *first()]"
    )

    def write(files):
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        return {"PYTHONPATH": f"{environment()['PYTHONPATH']}:{folder}"}

    return write


def test_nobody_preloads_the_users_own(inner, zygote):
    inner.write(mine="raise SystemExit('imported')", test_a="def test_a(): pass")
    started = zygote(preload=["mine", "nothing_there", "json", "jax", "jax.numpy", "numba.cuda", "torch_xla"])
    assert started.ready["preloaded"] == []
    assert dict(started.ready["passed_over"]) == {
        "mine": "is not a third-party module",
        "nothing_there": "is not installed",
        "json": "is not a third-party module",
        "jax": "is not safe to fork",
        "jax.numpy": "is not safe to fork",
        "numba.cuda": "is not safe to fork",
        "torch_xla": "is not safe to fork",
    }
    assert started.run("test_a.py").code == 0


@pytest.mark.parametrize("depth", ["collection", "imports", "auto"])
def test_numpy_is_preloaded_with_its_threads(inner, zygote, depth):
    needs("numpy")
    inner.write(
        test_a="import sys\nloaded = 'numpy' in sys.modules\nimport numpy\n"
        "def test_a():\n    assert loaded\n    assert (numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum() == 300**3"
    )
    started = zygote(preload=["numpy", "numpy.testing"], depth=depth, env={"OPENBLAS_NUM_THREADS": "2"})
    assert started.ready["preloaded"] == ["numpy", "numpy.testing"]
    for child in [started.fork("test_a.py") for _ in range(3)]:
        started.wait(child)
        assert child.code == 0, child


def test_torch_is_preloaded(inner, zygote):
    needs("torch")
    inner.write(
        test_a="import torch\ndef test_a(): assert (torch.ones(500, 500) @ torch.ones(500, 500)).sum() == 500**3"
    )
    started = zygote(preload=["torch"])
    assert (started.ready["preloaded"], started.ready["depth"]) == (["torch"], "collection")
    assert [started.run("test_a.py").code for _ in range(2)] == [0, 0]


def test_a_preload_that_starts_a_thread_is_passed_over(inner, zygote, installed):
    env = installed(
        {
            "good.py": "",
            "threaded.py": "from threading import *\nThread(target=Event().wait, daemon=True, name='pool').start()",
            "broken.py": "raise RuntimeError('no device')",
            "hidden.py": "import sys, types\nsys.modules['tensorflow'] = types.ModuleType('tensorflow')",
        }
    )
    inner.write(test_a="import sys\ndef test_a(): assert 'threaded' not in sys.modules and 'good' in sys.modules")
    started = zygote(preload=["threaded", "broken", "hidden", "good"], env=env)
    assert started.ready["depth"] == "collection"
    assert started.ready["preloaded"] == ["good"]
    assert dict(started.ready["passed_over"]) == {
        "threaded": "is not safe to fork once imported: a thread was started: `pool`",
        "broken": "cannot be imported: RuntimeError: no device",
        "hidden": "is not safe to fork once imported: `tensorflow` was imported, which is not safe to fork",
    }
    child = started.run("test_a.py")
    assert child.code == 0, child


def test_what_is_no_module_is_left_out_without_a_word(inner, zygote, installed):
    """`from good import function` names `good.function` as well; that must not cost a new interpreter."""
    env = installed(
        {"good.py": "import os\nos.environ['LOADED'] = os.environ.get('LOADED', '') + '1'\nfunction = print"}
    )
    inner.write(test_a="import os\ndef test_a(): assert os.environ['LOADED'] == '1'")
    started = zygote(preload=["good", "good.function", "good.function.nothing"], env=env)
    assert (started.ready["preloaded"], started.ready["passed_over"]) == (["good"], [])
    child = started.run("test_a.py")
    assert child.code == 0, child


def test_a_new_interpreter_begins_where_the_first_did(inner, zygote):
    inner.write(
        conftest="import os\nos.environ['LEFT'] = os.environ.get('LEFT', '') + '1'\nos.chdir('/')\n"
        "def pytest_sessionstart(): pass",
        test_a="import os\ndef test_a(): assert os.environ['LEFT'] == '1'",
    )
    started = zygote()
    assert "pytest_sessionstart" in why(started)
    assert started.ready["pid"] == started.process.pid
    child = started.run(str(inner.folder / "test_a.py"))
    assert child.code == 0, child


def test_no_warning_about_forks_is_seen(inner, zygote):
    needs("numpy")
    inner.write(test_a="import numpy\ndef test_a(): pass")
    started = zygote("-W", "error", preload=["numpy"], env={"PYTHONWARNINGS": "error::DeprecationWarning"})
    child = started.run("test_a.py")
    assert child.code == 0, child
    assert "warnings summary" not in child.stdout, sys.version
    assert "DeprecationWarning" not in child.stdout + child.stderr


@pytest.mark.parametrize("depth", ["collection", "imports"])
def test_what_a_library_made_at_import_outlives_the_first_child(inner, zygote, installed, depth):
    env = installed({"library.py": "import tempfile\nkept = tempfile.TemporaryDirectory()"})
    inner.write(
        test_a="import library, os, tempfile\nmine = tempfile.TemporaryDirectory()\n"
        "def test_a():\n    assert os.path.isdir(library.kept.name)\n    print('MINE', mine.name)\n    assert 0"
    )
    started = zygote(depth=depth, preload=["library"], env=env)
    for _ in range(2):
        (line,) = started.run("test_a.py").details
        (mine,) = (name for kind, text in line["sections"] if "stdout" in kind for name in text.split()[1:])
        assert not inner.folder.joinpath(mine).exists(), "a child's own is its own to remove"


PLUGIN = {
    "plugged.py": "import sys\nloaded_by = sys._getframe(0)\ndef check(value): assert value == 2\n"
    "def pytest_configure(config): sys.modules['plugged'].configured = True",
    "plugged-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: plugged\nVersion: 1\n",
    "plugged-1.dist-info/RECORD": "plugged.py,,\nplugged-1.dist-info/entry_points.txt,,\n",
    "plugged-1.dist-info/entry_points.txt": "[pytest11]\nplugged = plugged\n",
}


@pytest.mark.parametrize("depth", ["collection", "imports"])
def test_a_plugins_assertions_are_rewritten(inner, zygote, installed, depth):
    env = installed(PLUGIN)
    inner.write(test_a="import plugged\ndef test_a(): plugged.check(1)\ndef test_b(): assert plugged.configured")
    started = zygote(preload=["plugged"], depth=depth, env=env)
    assert started.ready["event"] == "ready", started.ready
    child = started.run("test_a.py")
    assert child.outcomes() == {"test_a.py::test_a": "failed", "test_a.py::test_b": "passed"}, child
    assert child.details[0]["message"].startswith("assert 1 == 2")
    assert "already imported" not in child.stdout


def test_plugins_are_loaded_once_unless_that_starts_a_thread(inner, zygote, installed):
    inner.write(test_a="import os, plugged\ndef test_a(): assert plugged.pid != os.getpid()")
    env = installed({**PLUGIN, "plugged.py": "import os\npid = os.getpid()"})
    started = zygote(depth="imports", env=env)
    assert started.ready["passed_over"] == []
    assert started.run("test_a.py").code == 0
    blocked = zygote("-p", "no:plugged", depth="imports", env=env)
    assert blocked.run("test_a.py").code == 1
    text = (
        "import os, threading\npid = os.getpid()\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    started = zygote(depth="imports", env=installed({**PLUGIN, "plugged.py": text}))
    ((what, told),) = started.ready["passed_over"]
    assert (what, told[:23]) == ("pytest's plugins", "a thread was started: `")
    child = started.run("test_a.py")
    assert (child.code, child.outcomes()) == (1, {"test_a.py::test_a": "failed"}), child


@pytest.mark.parametrize("depth", ["collection", "imports"])
def test_the_installed_package_is_its_own_plugin(inner, zygote, installed, depth):
    """Its distribution registers ``oomguard.pytest``: nothing happens twice, and pytest has nothing to warn of."""
    env = installed(
        {
            "oomguard-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: oomguard\nVersion: 1\n",
            "oomguard-1.dist-info/RECORD": "oomguard/__init__.py,,\n",
            "oomguard-1.dist-info/entry_points.txt": "[pytest11]\noomguard = oomguard.pytest\n",
        }
    )
    inner.write(test_a="def test_a(): pass")
    started = zygote("-W", "error", depth=depth, env=env)
    assert started.ready["event"] == "ready", started.ready
    child = started.run("test_a.py")
    assert child.code == 0, child
    assert [one["event"] for one in child.events] == ["collected", "start", "finish", "end"]
    assert "warning" not in child.stdout.replace(str(inner.folder), ""), child
