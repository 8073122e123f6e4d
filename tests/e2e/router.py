"""A network between namespaces, as a process of its own: every host has a device, this carries packets between them.

It needs to be root on Linux. Each host is a network namespace with one TUN device; what the kernel sends into it is
read here, lost or held up as the weather between two hosts has it, and written to the device of whom it is for. So the
connections are the kernel's own, with everything that TCP does about lost and late packets.

The first line on standard input is a JSON object: a seed, and addresses (IPv4) by host. The answer is a line with the
descriptor of each host's namespace, which is good for ``/proc/<process>/fd/<descriptor>`` while this process runs: the
namespaces end with it. Each further line sets the weather of some ways, and is answered when it counts.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import signal
import socket
import struct
import time
from typing import Any, Final

_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>
_TUNSETIFF: Final = 0x400454CA  # <linux/if_tun.h>
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_SIOCSIFADDR: Final = 0x8916  # <linux/sockios.h>
_SIOCSIFNETMASK: Final = 0x891C
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 0x1  # <linux/if.h>
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_PACKET: Final = 65536
#: What is on its way at most, in packets; more is lost, as in any queue.
_QUEUE: Final = 5000


class Router:
    """Hosts, the ways between them, and what is under way."""

    def __init__(self, seed: object, addresses: dict[str, str]) -> None:
        """Make a namespace for each host. Raises OSError where that is not allowed."""
        self.namespaces: dict[str, int] = {}
        self._random = random.Random(f"{seed} packets")
        self._devices: dict[bytes, int] = {}
        self._names: dict[bytes, str] = {}
        self._weather: dict[tuple[str, str], dict[str, Any]] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._numbers = itertools.count()
        self._poll = select.epoll()
        for name, address in addresses.items():
            device = _make_host(address)
            self.namespaces[name] = os.open("/proc/self/ns/net", os.O_RDONLY)
            self._devices[socket.inet_aton(address)] = device
            self._names[socket.inet_aton(address)] = name
            self._poll.register(device, select.EPOLLIN)
        self._poll.register(0, select.EPOLLIN)

    def run(self) -> None:
        """Carry packets until standard input ends."""
        lines = b""
        while True:
            rest = self._queue[0][0] - time.monotonic() if self._queue else 60.0
            for descriptor, _ in self._poll.poll(max(0.0, rest)):
                if descriptor:
                    self._take(descriptor)
                    continue
                data = os.read(0, _PACKET)
                if not data:
                    return
                *whole, lines = (lines + data).split(b"\n")
                for line in whole:
                    self._set(json.loads(line))
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, device, packet = heapq.heappop(self._queue)
                _write(device, packet)

    def _set(self, order: dict[str, Any]) -> None:
        for sender, receiver in order.pop("ways"):
            self._weather[sender, receiver] = order
        _say({})

    def _take(self, device: int) -> None:
        """Read what a host sends."""
        for _ in range(64):
            try:
                packet = os.read(device, _PACKET)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4:
                self._forward(packet)

    def _forward(self, packet: bytes) -> None:
        sender, receiver = packet[12:16], packet[16:20]
        device = self._devices.get(receiver)
        if device is None or sender not in self._names:
            return
        weather = self._weather.get((self._names[sender], self._names[receiver]))
        if weather is None:
            _write(device, packet)
            return
        if weather["cut"] or self._random.random() < weather["loss"] or len(self._queue) >= _QUEUE:
            return
        arrives = time.monotonic() + weather["latency"] + self._random.random() * weather["jitter"]
        heapq.heappush(self._queue, (arrives, next(self._numbers), device, packet))


def _write(device: int, packet: bytes) -> None:
    """Give a packet to a host; it is lost if that one is not there any more, or has no room."""
    try:
        os.write(device, packet)
    except OSError:
        pass


def _make_host(address: str) -> int:
    """Go into a new namespace with a device that has an address; the descriptor of that device."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, f"no network namespace: {os.strerror(code)}")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            fcntl.ioctl(control, request, struct.pack("16sHH4s16x", b"wire", socket.AF_INET, 0, socket.inet_aton(text)))
        for name in (b"wire", b"lo"):
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, _IFF_UP))
    return device


def _say(words: dict[str, Any]) -> None:
    os.write(1, json.dumps(words).encode() + b"\n")


def main() -> None:
    """Run until standard input ends, or whoever started this does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    # Nothing but this line has been sent so far.
    order = json.loads(os.read(0, _PACKET))
    try:
        router = Router(order["seed"], order["addresses"])
    except OSError as error:
        _say({"problem": str(error)})
        return
    _say({"namespaces": router.namespaces})
    router.run()


if __name__ == "__main__":
    main()
