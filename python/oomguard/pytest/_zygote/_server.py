"""Waits for orders, forks, reaps. One ``poll`` over the socket and the children's pidfds; no thread."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import NoReturn

from oomguard.pytest._zygote import _child, _death, _safety
from oomguard.pytest._zygote._channel import Channel
from oomguard.pytest._zygote._order import Order
from oomguard.pytest._zygote._output import Output, flush
from oomguard.pytest._zygote._seeds import Seeds

Check = Callable[[Order], str | None]
PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """One that lives."""

    def __init__(self, id: int, pid: int, pidfd: int) -> None:
        self.id = id
        self.pid = pid
        self.pidfd = pidfd

    def kill(self) -> None:
        """The process, and the group that it leads if it has got so far."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            pass  # it has no group yet, or nobody is left in it
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except OSError:
            pass


class Server:
    """
    Args:
        check: Says why an order cannot be carried out at this depth, or nothing.
        env: Changes of the environment that every child gets, before its own.
    """

    def __init__(self, channel: Channel, output: Output, check: Check, env: dict[str, str | None]) -> None:
        self._channel = channel
        self._output = output
        self._check = check
        self._env = env
        self._children: dict[int, Child] = {}
        self._poller = select.poll()
        self._poller.register(channel, select.POLLIN)

    def serve(self) -> Order:
        """Returns in children only, in each as the process that was ordered. Ends the zygote at the end of file."""
        flush()
        _child.keep_finalizers()
        _death.no_more()
        shared, seeds = self._output.look(), Seeds()
        handlers, garbage = _child.Handlers(), _child.Garbage()
        order = self._until_a_child()
        # This is the child, confined already.
        try:
            self._output.replace(shared, order.stdout, order.stderr)
        except OSError as error:
            _child.fail(order, f"a descriptor of its own: {error}")
        for fd in (*order.joins, order.stdout, order.stderr, *(child.pidfd for child in self._children.values())):
            os.close(fd)
        self._channel.close()
        handlers.child()
        _child.apply({**self._env, **order.env})
        seeds.child()
        garbage.child()
        return order

    def _until_a_child(self) -> Order:
        while True:
            for fd, _ in self._poller.poll():
                if fd in self._children:
                    self._reap(fd)
                elif order := self._next():
                    return order

    def _next(self) -> Order | None:
        """The next packet; an order only in the child that it has made."""
        id: int | None = None
        fds: list[int] = []
        try:
            received = self._channel.receive()
            if received is None:
                self._end()
            packet, fds = received
            id = packet.get("id")
            if packet.get("op") != "fork":
                raise ValueError(f"`op` is `{packet.get('op')}`, not `fork`")
            order = Order.read(packet, fds)
            why = self._check(order) or _safety.threads()
        except ValueError as error:
            why = str(error)
        if why is not None:
            self._channel.send("refused", id=id, why=why)
            _close(fds)
            return None
        return order if self._fork(order) else None

    def _fork(self, order: Order) -> bool:
        try:
            pid = _safety.fork()
        except OSError as error:
            self._channel.send("refused", id=order.id, why=f"fork: {error.strerror}")
            _close(order.fds)
            return False
        if pid == 0:
            _child.confine(order)
            return True
        _close(order.fds)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = Child(order.id, pid, pidfd)
        self._poller.register(pidfd, select.POLLIN)
        self._channel.send("forked", pidfd, id=order.id, pid=pid)
        return False

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poller.unregister(pidfd)
        os.close(pidfd)
        _, status, used = os.wait4(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        end = {"signal": -code} if code < 0 else {"code": code}
        times = {"user": round(used.ru_utime, 6), "system": round(used.ru_stime, 6), "maxrss": used.ru_maxrss * 1024}
        self._channel.send("exited", id=child.id, **end, **times)

    def _end(self) -> NoReturn:
        """The runner is gone, or done."""
        for child in self._children.values():
            child.kill()
        for child in self._children.values():
            os.waitpid(child.pid, 0)
        os._exit(0)


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
