"""Commands from inside the process: the same gates and handlers as for clients, Python values instead of bytes."""

from __future__ import annotations

from typing import Any

from ..errors import FIX, ErrorKind, ReplyError
from ..reply import NoReply, NullArray, Pairs, SetReply, Status, Verbatim
from ..store.command import Blocked
from . import dispatch
from .commands.replication import count_acknowledged
from .server import Server
from .session import Session

__all__ = ["LocalClient", "to_python"]

NEEDS_CONNECTION = ErrorKind("ERR", "'{}' needs a connection of its own", FIX)


def to_bytes(value: bytes | str | int | float) -> bytes:
    """An argument as bytes: ``str`` becomes UTF-8, numbers their decimal form. Raises TypeError for anything else."""
    if isinstance(value, bytes):
        # Of the class itself: values and keys are told from other things by it.
        return bytes(value)
    if isinstance(value, str):
        return value.encode()
    if type(value) in (int, float):
        return repr(value).encode()
    raise TypeError(f"an argument is bytes, str, int or float, not {type(value).__name__}")


def to_python(reply: Any) -> Any:
    """A typed reply as a plain value: statuses and texts become ``str``, both nulls None, RESP3 sets ``set``."""
    kind = type(reply)
    if kind in (bytes, int, float, bool, type(None)):
        return reply
    if isinstance(reply, Status):
        return reply.text.decode()
    if isinstance(reply, Verbatim):
        return reply.text.decode("utf-8", "surrogateescape")
    if isinstance(reply, (NullArray, NoReply)):
        return None
    if isinstance(reply, SetReply):
        return {to_python(element) for element in reply}
    if isinstance(reply, Pairs):
        return [[to_python(element) for element in pair] for pair in reply]
    if isinstance(reply, dict):
        return {to_python(key): to_python(value) for key, value in reply.items()}
    if isinstance(reply, (list, tuple)):
        return [to_python(element) for element in reply]
    return reply


class LocalClient:
    """Runs single commands for the program that the node lives in."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session = Session(server, "in-process", "in-process", "local")
        self._session.protocol = 3
        self._session.set_authenticated(True)

    def execute(self, name: bytes | str, *arguments: bytes | str | int | float) -> Any:
        """Run one command and return its reply as a plain value; raises ReplyError.

        A blocking command does not wait: it answers as if its time had passed.
        """
        argv = [to_bytes(name), *map(to_bytes, arguments)]
        server, session = self._server, self._session
        server.tick()
        command = dispatch.resolve(server, argv)
        if command.needs_connection:
            raise NEEDS_CONNECTION(command.full_name)
        dispatch.refuse(session, command, argv)
        reply = dispatch.call(session, command, argv)
        session.commit()
        server.commit()
        answer = reply.at_once if isinstance(reply, Blocked) else reply
        if isinstance(answer, ReplyError):
            raise answer
        return to_python(answer)

    def count_acknowledged(self) -> int:
        """How many replicas have applied everything that this program wrote."""
        return count_acknowledged(self._session)

    def close(self) -> None:
        """Leave the node's list of clients."""
        self._session.disconnected("closed")
