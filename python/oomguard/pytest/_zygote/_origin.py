"""Where code comes from: the user's, or installed. Reads paths only."""

from __future__ import annotations

import functools
import os
import site
import sys
import sysconfig


@functools.cache
def installed() -> tuple[str, ...]:
    """Folders of installed packages, each with a slash at its end."""
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return _folders(paths)


@functools.cache
def ours() -> tuple[str, ...]:
    """Folders of the standard library and of this package."""
    paths = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return _folders([*paths, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))])


def is_users(file: str | None) -> bool:
    """Whether a file of code is the user's own, as far as its path tells; editable installs are."""
    if not file or file.startswith("<"):
        return False
    path = os.path.realpath(file)
    return not path.startswith(installed() + ours())


def is_installed(file: str | None) -> bool:
    """Whether a file of code is of an installed package."""
    return bool(file) and os.path.realpath(str(file)).startswith(installed())


def of_plugin(plugin: object) -> str | None:
    """The file that a plugin's code is in: a module, or an object of a class."""
    module = plugin if hasattr(plugin, "__file__") else sys.modules.get(type(plugin).__module__)
    found = getattr(module, "__file__", None)
    return found if isinstance(found, str) else None


def _folders(paths: list[str]) -> tuple[str, ...]:
    return tuple(sorted({os.path.join(os.path.realpath(path), "") for path in paths}))
