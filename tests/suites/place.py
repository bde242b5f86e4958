"""Makes what a suite needs: its source distribution, an environment with its package, and oomguard in it."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv

from suites import Suite

PYTEST = ("pytest",)


class Place:
    """``python`` and ``oomguard`` of an environment, and ``cwd``, the folder the tests are named from."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.bin = folder / "environment" / "bin"
        self.python = self.bin / "python"
        self.oomguard = self.bin / "oomguard"
        self.site = folder / "environment" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        self.cwd = folder


def prepare(suite: Suite, folder: pathlib.Path, oomguard: pathlib.Path) -> Place:
    """Downloads and installs what is not there yet. ``oomguard`` is the command that is tried.

    Raises:
        subprocess.CalledProcessError: pip cannot.
    """
    place = Place(folder)
    done = folder / ".prepared"
    if not done.exists():
        venv.create(folder / "environment", with_pip=True, clear=True)
        wanted = [suite.package, *PYTEST, *suite.needs]
        subprocess.run([place.python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        if not suite.inside:
            _unpack(suite, place)
        done.touch()
    _install_oomguard(place, oomguard)
    place.cwd = place.site if suite.inside else next(path for path in (folder / "source").iterdir() if path.is_dir())
    return place


def _unpack(suite: Suite, place: Place) -> None:
    name = re.split(r"[=<>!~\[ ]", suite.package)[0]
    release = _installed(place, name)
    download = place.folder / "download"
    command = [place.python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", download]
    subprocess.run([*command, f"{name}=={release}"], check=True)
    with tarfile.open(next(download.iterdir())) as archive:
        archive.extractall(place.folder / "source", filter="data")


def _installed(place: Place, name: str) -> str:
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([place.python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _install_oomguard(place: Place, command: pathlib.Path) -> None:
    """Links the command, and the package that this interpreter imports: both are tried as they are here."""
    import oomguard

    package = pathlib.Path(oomguard.__file__).parent
    for link, target in ((place.site / "oomguard", package), (place.oomguard, command)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def beside_python() -> pathlib.Path:
    """The command that was installed with this interpreter's package."""
    return pathlib.Path(sys.executable).with_name("oomguard")
