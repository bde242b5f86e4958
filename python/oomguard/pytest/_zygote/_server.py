"""Waits for orders, forks, reaps. One ``poll`` over the socket and the children's pidfds; no thread."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from oomguard.pytest._zygote import _child, _death, _safety
from oomguard.pytest._zygote._channel import Channel, Packet
from oomguard.pytest._zygote._order import Order, Standby
from oomguard.pytest._zygote._output import Output, flush
from oomguard.pytest._zygote._seeds import Seeds

Check = Callable[[Order], str | None]
PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """One that lives. ``channel``: where its order goes; it stands by, and ``id`` is its number as that, for as long as
    there is one."""

    def __init__(self, id: int, pid: int, channel: Channel | None) -> None:
        self.id = id
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.channel = channel

    def take(self, order: Order, packet: Packet) -> bool:
        """Gives it what it stands by for; whether it is there to take it."""
        if self.channel is None or not self.channel.forward(packet):
            return False
        self.channel.close()
        self.id, self.channel = order.id, None
        return True

    def close(self) -> None:
        """What the zygote holds of it."""
        os.close(self.pidfd)
        if self.channel is not None:
            self.channel.close()

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
        # This is the child, in its cgroups already.
        if why := _child.limit(order.rlimit_data):
            _child.fail(order, why)
        try:
            self._output.replace(shared, order.stdout, order.stderr)
        except OSError as error:
            _child.fail(order, f"a descriptor of its own: {error}")
        _close([*order.joins, order.stdout, order.stderr])
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
        refused: dict[str, Any] = {"id": None}
        fds: list[int] = []
        try:
            packet = self._channel.receive()
            if packet is None:
                self._end()
            fields, fds = packet.fields, packet.fds
            op, refused = fields.get("op"), {"id": fields.get("id")}
            if op == "fork":
                return self._begin(Order.read(fields, fds), packet)
            if op == "stand by":
                refused = {"standby": fields.get("standby")}
                return self._stand_by(Standby.read(fields, fds))
            raise ValueError(f"`op` is `{op}`, not `fork` or `stand by`")
        except ValueError as error:
            self._channel.send("refused", **refused, why=str(error))
            _close(fds)
            return None

    def _begin(self, order: Order, packet: Packet) -> Order | None:
        """A child for this order: the one that stands by for it, or a new one. Returns it in that."""
        waiting = (child for child in self._children.values() if child.channel and child.id == order.standby)
        child = next(waiting, None)
        if why := self._check(order):
            if child is not None:
                child.kill()
            raise ValueError(why)
        if child is not None and not child.take(order, packet):
            child.kill()
            child = None
        if child is None:
            child = self._fork(order.id, None)
            if child is None:
                if why := _child.enter(order.joins, order.oom_score_adj):
                    _child.fail(order, why)
                return order
        _close(order.fds)
        self._channel.send("forked", child.pidfd, id=order.id, pid=child.pid)
        return None

    def _stand_by(self, wanted: Standby) -> Order | None:
        """A child that waits for its order in its cgroups already. Returns that, in the child."""
        ours, theirs = Channel.pair()
        try:
            child = self._fork(wanted.number, ours)
        except ValueError:
            ours.close()
            theirs.close()
            raise
        if child is None:
            try:
                ours.close()
                return _order_of(theirs, wanted)
            except BaseException:
                os._exit(_child.FAILED)  # nothing of the zygote's is this process's to do
        theirs.close()
        _close(wanted.joins)
        return None

    def _fork(self, id: int, channel: Channel | None) -> Child | None:
        """``None`` in the child, which holds nothing of its siblings'.

        Raises:
            ValueError: Why there is none.
        """
        if why := _safety.threads():
            raise ValueError(why)
        try:
            pid = _safety.fork()
        except OSError as error:
            raise ValueError(f"fork: {error.strerror}") from None
        if pid == 0:
            self._channel.close()
            for sibling in self._children.values():
                sibling.close()
            self._children.clear()
            return None
        child = Child(id, pid, channel)
        self._children[child.pidfd] = child
        self._poller.register(child.pidfd, select.POLLIN)
        return child

    def _reap(self, pidfd: int) -> None:
        child = self._children.pop(pidfd)
        self._poller.unregister(pidfd)
        child.close()
        _, status, used = os.wait4(child.pid, 0)
        if child.channel is not None:
            return  # it had no order
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


def _order_of(channel: Channel, wanted: Standby) -> Order:
    """In a child that stands by: enters its cgroups and waits."""
    why = _child.enter(wanted.joins, wanted.oom_score_adj)
    _close(wanted.joins)
    received = channel.receive()
    if received is None:
        os._exit(0)  # the zygote is gone
    channel.close()
    order = Order.read(received.fields, received.fds)
    if why:
        _child.fail(order, why)
    return order


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
