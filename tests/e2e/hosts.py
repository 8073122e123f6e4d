"""Where nodes and clients of a test run: loopback addresses, or network namespaces whose connections can be made bad.

Both have the same use: addresses by name, a prefix for the command line of what runs there, and a way to connect.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import trio

__all__ = ["CLIENTS", "Hosts", "LoopbackHosts", "NamespaceHosts", "why_no_namespaces"]

#: The host that clients connect from.
CLIENTS: Final = "clients"
_CLONE_NEWNET: Final = 0x40000000  # <linux/sched.h>
_ROUTER: Final = Path(__file__).with_name("router.py")


class Hosts(Protocol):
    """Machines by name."""

    addresses: dict[str, str]

    def inside(self, name: str) -> Sequence[str]:
        """What stands before a command line that is to run on a host."""
        ...

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        """A connection from where clients are. Raises OSError."""
        ...


class LoopbackHosts:
    """Every name has a loopback address of its own; nothing ever befalls the network."""

    def __init__(self, names: Sequence[str]) -> None:
        base = f"127.{random.randrange(64, 128)}.{random.randrange(1, 255)}"
        self.addresses = {name: f"{base}.{number}" for number, name in enumerate(names, 1)}

    def __enter__(self) -> LoopbackHosts:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inside(self, name: str) -> Sequence[str]:
        """Nothing: they all run here."""
        return ()

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        """A connection. Raises OSError."""
        return await trio.open_tcp_stream(address, port)


class NamespaceHosts:
    """Every name is a network namespace, and a router stands between them. A context manager."""

    def __init__(self, names: Sequence[str], seed: object = 0) -> None:
        """Make the namespaces. Raises OSError with the reason where that is not possible."""
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        if sys.platform != "linux" or shutil.which("nsenter") is None:
            raise OSError("it takes Linux, and nsenter of util-linux")
        self._router = subprocess.Popen(
            [sys.executable, str(_ROUTER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            answer = self._order(seed=seed, addresses={**self.addresses, CLIENTS: "10.77.0.250"})
            self._namespaces: dict[str, int] = answer["namespaces"]
            self._clients = os.open(self._path(CLIENTS), os.O_RDONLY)
        except BaseException:
            self._end_router()
            raise
        self._here = os.open("/proc/self/ns/net", os.O_RDONLY)

    def _order(self, **order: Any) -> dict[str, Any]:
        """Tell the router something; its answer. Raises OSError."""
        assert self._router.stdin is not None
        assert self._router.stdout is not None
        self._router.stdin.write(json.dumps(order).encode() + b"\n")
        self._router.stdin.flush()
        line = self._router.stdout.readline()
        if not line:
            assert self._router.stderr is not None
            raise OSError(f"the router ended: {self._router.stderr.read().decode(errors='replace')[-500:]}")
        answer: dict[str, Any] = json.loads(line)
        if "problem" in answer:
            raise OSError(answer["problem"])
        return answer

    def _path(self, name: str) -> str:
        return f"/proc/{self._router.pid}/fd/{self._namespaces[name]}"

    def _end_router(self) -> None:
        self._router.kill()
        self._router.communicate()

    def __enter__(self) -> NamespaceHosts:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._clients)
        os.close(self._here)
        self._end_router()

    def inside(self, name: str) -> Sequence[str]:
        """``nsenter``, which becomes the command itself."""
        return ("nsenter", f"--net={self._path(name)}")

    async def connect(self, address: str, port: int) -> trio.abc.Stream:
        """A connection from the namespace of the clients. Raises OSError."""
        # A socket belongs to the namespace that its thread is in when it is made, wherever it is used.
        _enter(self._clients)
        try:
            bare = socket.socket()
        finally:
            _enter(self._here)
        bare.setblocking(False)
        made = trio.socket.from_stdlib_socket(bare)
        try:
            await made.connect((address, port))
            return trio.SocketStream(made)
        except BaseException:
            made.close()
            raise

    def set_weather(
        self,
        ways: Iterable[tuple[str, str]],
        *,
        cut: bool = False,
        loss: float = 0.0,
        latency: float = 0.0,
        jitter: float = 0.0,
    ) -> None:
        """Have packets of these ways, each from a host to a host, get lost, or take some seconds (jitter: up to so many
        more). It counts at once."""
        self._order(ways=list(ways), cut=cut, loss=loss, latency=latency, jitter=jitter)

    def ways(self, one: str, other: str = "") -> list[tuple[str, str]]:
        """Both ways between two hosts, or all ways to and from one."""
        others = [other] if other else [name for name in self._namespaces if name != one]
        return [way for name in others for way in ((one, name), (name, one))]

    def calm(self) -> None:
        """End all weather."""
        self.set_weather(way for name in self._namespaces for way in self.ways(name))


def _enter(namespace: int) -> None:
    """Have this thread be in another network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@cache
def why_no_namespaces() -> str:
    """Why there can be no :class:`NamespaceHosts` on this machine; empty if there can."""
    try:
        with NamespaceHosts(["one"]) as hosts:
            done = subprocess.run([*hosts.inside("one"), "true"], capture_output=True, check=False)
            return done.stderr.decode(errors="replace").strip() if done.returncode else ""
    except OSError as error:
        return str(error)
