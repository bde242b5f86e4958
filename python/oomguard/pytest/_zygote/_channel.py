"""The socket between runner and zygote, or zygote and child: one JSON object a packet, with descriptors. Blocks; raises
nothing the other end's death could cause: that is the end of file, and a packet to nobody is dropped."""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any, NamedTuple

VARIABLE = "OOMGUARD_ZYGOTE_FD"
LONGEST = 1 << 16
"""Bytes of a packet."""
MOST_FDS = 253
"""The kernel's own bound for one packet."""


class Packet(NamedTuple):
    """One that has come: as it came, its object, its descriptors."""

    raw: bytes
    fields: dict[str, Any]
    fds: list[int]


class Channel:
    """One end.

    Raises:
        OSError: ``fd`` is not a socket.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def receive(self) -> Packet | None:
        """The next packet, none of its descriptors inheritable; ``None`` at the end. Waits.

        Raises:
            ValueError: The packet is not a JSON object; its descriptors are closed.
        """
        try:
            raw, ancillary, _, _ = self._socket.recvmsg(
                LONGEST, socket.CMSG_SPACE(MOST_FDS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return None
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not raw:
            return None
        try:
            fields = json.loads(raw.decode())
            if not isinstance(fields, dict):
                raise ValueError("a packet is one JSON object")
        except ValueError:
            for fd in fds:
                os.close(fd)
            raise
        return Packet(raw, fields, list(fds))

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends of a new one."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one.detach()), cls(other.detach())

    def forward(self, packet: Packet) -> bool:
        """Passes on what was received; whether anybody is there to receive it, whole."""
        try:
            sent = socket.send_fds(self._socket, [packet.raw], packet.fds, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return sent == len(packet.raw)

    def send(self, event: str, *fds: int, **fields: object) -> None:
        """Tells the runner. A text ``output`` that would not fit loses its beginning."""
        raw = _encoded({"event": event, **fields})
        while len(raw) > LONGEST and fields.get("output"):
            output = str(fields["output"])
            fields["output"] = output[len(output) - len(output) * 3 // 4 :] if len(output) > 16 else ""
            raw = _encoded({"event": event, **fields})
        try:
            socket.send_fds(self._socket, [raw], list(fds))
        except OSError:
            pass  # the next `receive` finds the end

    def close(self) -> None:
        """This end. In a child, which has a copy of the zygote's: only there."""
        self._socket.close()


def _encoded(packet: dict[str, Any]) -> bytes:
    return json.dumps(packet, separators=(",", ":")).encode()
