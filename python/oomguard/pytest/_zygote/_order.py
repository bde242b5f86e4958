"""What the runner asks for, read and checked."""

from __future__ import annotations

from typing import Any, NamedTuple


class Hello(NamedTuple):
    """The first packet."""

    args: list[str]
    paths: list[str]
    preload: list[str]
    depth: str

    @classmethod
    def read(cls, packet: dict[str, Any]) -> Hello:
        """
        Raises:
            ValueError: It is not of this version, or a field has another type.
        """
        if packet.get("v") != 1:
            raise ValueError(f"this zygote speaks version 1, not `{packet.get('v')}`")
        depth = packet.get("depth", "auto")
        if depth not in ("auto", "collection", "imports"):
            raise ValueError(f"`depth` is `{depth}`, not `auto`, `collection` or `imports`")
        return cls(_texts(packet, "args"), _texts(packet, "paths"), _texts(packet, "preload"), depth)


class Standby(NamedTuple):
    """One child that is to wait for its order in these cgroups."""

    number: int
    oom_score_adj: int | None
    joins: list[int]

    @classmethod
    def read(cls, packet: dict[str, Any], fds: list[int]) -> Standby:
        """
        Raises:
            ValueError: A field is missing or has another type, or the descriptors are not as many as told.
        """
        if len(fds) != _number(packet, "joins"):
            raise ValueError(f"{len(fds)} descriptors came, not {packet.get('joins')} to join")
        return cls(_required(packet, "standby"), _number(packet, "oom_score_adj"), fds)


class Order(NamedTuple):
    """One child. ``fds`` are all that came: its stdout and stderr, the pipe's writing end, the file for the details of
    failures, and what to join. Sizes in bytes."""

    id: int
    args: list[str]
    env: dict[str, str | None]
    oom_score_adj: int | None
    rlimit_data: int | None
    standby: int | None
    fds: list[int]
    stdout: int
    stderr: int
    heartbeat: int
    report: int
    joins: list[int]

    @classmethod
    def read(cls, packet: dict[str, Any], fds: list[int]) -> Order:
        """
        Raises:
            ValueError: A field is missing or has another type, or the descriptors are not as many as told.
        """
        joins = _number(packet, "joins") or 0
        if len(fds) != 4 + joins:
            raise ValueError(f"{len(fds)} descriptors came, not 4 and {joins} to join")
        env = packet.get("env") or {}
        if not isinstance(env, dict) or not all(value is None or isinstance(value, str) for value in env.values()):
            raise ValueError("`env` is not an object of texts and nulls")
        adj, data, standby = (_number(packet, name) for name in ("oom_score_adj", "rlimit_data", "standby"))
        out, err, heartbeat, report, *to_join = fds
        number, args = _required(packet, "id"), _texts(packet, "args")
        return cls(number, args, env, adj, data, standby, fds, out, err, heartbeat, report, to_join)


def _required(packet: dict[str, Any], name: str) -> int:
    number = _number(packet, name)
    if number is None:
        raise ValueError(f"`{name}` is missing")
    return number


def _texts(packet: dict[str, Any], name: str) -> list[str]:
    found = packet.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f"`{name}` is not a list of texts")
    return found


def _number(packet: dict[str, Any], name: str) -> int | None:
    found = packet.get(name)
    if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
        raise ValueError(f"`{name}` is not a whole number")
    return found
