"""PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET."""

from __future__ import annotations

import hmac

from ... import errors
from ...errors import ErrorKind
from ...reply import OK, Reply, Status
from ...store.arguments import as_int
from ...store.command import Args, command
from ..session import Session

_NOT_INTEGER_VERSION = ErrorKind("ERR", "Protocol version is not an integer or out of range", errors.FIX)
_HELLO_SYNTAX = ErrorKind("ERR", "Syntax error in HELLO option '{}'", errors.FIX)
_HELLO_NEEDS_AUTH = ErrorKind(
    "NOAUTH",
    "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option "
    "can be used to authenticate the client and select the RESP protocol version at the same time",
    "Add AUTH to HELLO.",
)
_WRONG_PASSWORD = ErrorKind("WRONGPASS", "invalid username-password pair or user is disabled.", "Check the password.")
_NO_PASSWORD_SET = ErrorKind(
    "ERR",
    "AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?",
    "Do not send a password, or configure requirepass at the node.",
)
_NO_SUCH_DATABASE = ErrorKind(
    "ERR", "DB index is out of range", "A node has one database, number 0: prefix keys instead."
)
_BAD_NAME = ErrorKind("ERR", "Client names cannot contain spaces, newlines or special characters.", errors.FIX)

_PONG = Status(b"PONG")


@command(
    "ping",
    arity=-1,
    flags="fast",
    group="connection",
    since="1.0.0",
    summary="Answers, so that a client knows the node lives.",
    complexity="O(1)",
    syntax="[message]",
    tips=("request_policy:all_shards", "response_policy:all_succeeded"),
    on_store=False,
)
def ping(session: Session, argv: Args) -> Reply:
    if len(argv) > 2:
        raise errors.WRONG_ARITY("ping")
    if session.protocol == 2 and "subscribed" in session.gates:
        return [b"pong", argv[1] if len(argv) == 2 else b""]
    return argv[1] if len(argv) == 2 else _PONG


@command(
    "echo",
    arity=2,
    flags="fast loading stale",
    group="connection",
    since="1.0.0",
    summary="Gives the message back.",
    complexity="O(1)",
    syntax="message",
    on_store=False,
)
def echo(session: Session, argv: Args) -> Reply:
    return argv[1]


def set_name(session: Session, name: bytes) -> None:
    """Name a connection; raises ReplyError for characters that would break CLIENT LIST's lines."""
    if any(not 0x21 <= char <= 0x7E for char in name):
        raise _BAD_NAME()
    session.name = name


def authenticate(session: Session, user: bytes, password: bytes) -> None:
    """Open the session if user and password fit; raises ReplyError. Comparing takes the same time for any guess."""
    expected = session.server.password
    if user != b"default" or (expected is not None and not hmac.compare_digest(password, expected)):
        session.server.statistics.denied_logins += 1
        session.server.log.warning("authentication_failed", id=session.id, peer=session.peer)
        raise _WRONG_PASSWORD()
    session.set_authenticated(True)


@command(
    "auth",
    arity=-2,
    flags="noscript loading stale fast no_auth allow_busy",
    group="connection",
    since="1.0.0",
    summary="Proves to the node who the client is.",
    complexity="O(N) where N is the number of passwords defined for the user",
    syntax="[username] password",
    on_store=False,
)
def auth(session: Session, argv: Args) -> Reply:
    if len(argv) > 3:
        raise errors.SYNTAX()
    if len(argv) == 2:
        if session.server.password is None:
            raise _NO_PASSWORD_SET()
        authenticate(session, b"default", argv[1])
    else:
        authenticate(session, argv[1], argv[2])
    return OK


@command(
    "hello",
    arity=-1,
    flags="noscript loading stale fast no_auth allow_busy",
    group="connection",
    since="6.0.0",
    summary="Chooses the protocol version, and says who the node is.",
    complexity="O(1)",
    syntax="[protover [AUTH username password] [SETNAME clientname]]",
    on_store=False,
)
def hello(session: Session, argv: Args) -> Reply:
    protocol = session.protocol
    if len(argv) > 1:
        version = as_int(argv[1])
        if version is None:
            raise _NOT_INTEGER_VERSION()
        if version not in (2, 3):
            raise errors.NO_PROTOCOL()
        protocol = version
    user = password = name = None
    place = 2
    while place < len(argv):
        option = argv[place].upper()
        if option == b"AUTH" and place + 2 < len(argv):
            user, password = argv[place + 1], argv[place + 2]
            place += 3
        elif option == b"SETNAME" and place + 1 < len(argv):
            name = argv[place + 1]
            if any(not 0x21 <= char <= 0x7E for char in name):
                raise _BAD_NAME()
            place += 2
        else:
            raise _HELLO_SYNTAX(errors.text(argv[place]))
    if user is not None and password is not None:
        authenticate(session, user, password)
    if not session.authenticated:
        raise _HELLO_NEEDS_AUTH()
    if name is not None:
        set_name(session, name)
    session.protocol = protocol
    return {
        b"server": b"kevynode",
        b"version": session.server.redis_version.encode(),
        b"proto": protocol,
        b"id": session.id,
        b"mode": b"standalone",
        b"role": b"master" if session.server.role == "master" else b"replica",
        b"modules": [],
    }


@command(
    "select",
    arity=2,
    flags="loading stale fast allow_busy",
    group="connection",
    since="1.0.0",
    summary="Chooses the database; a node has one, number 0.",
    complexity="O(1)",
    syntax="index",
    on_store=False,
)
def select(session: Session, argv: Args) -> Reply:
    index = as_int(argv[1])
    if index is None:
        raise errors.NOT_INTEGER()
    if index != 0:
        raise _NO_SUCH_DATABASE()
    return OK


@command(
    "quit",
    arity=-1,
    flags="noscript loading stale fast no_auth allow_busy",
    group="connection",
    since="1.0.0",
    summary="Closes the connection.",
    complexity="O(1)",
    on_store=False,
)
def quit_connection(session: Session, argv: Args) -> Reply:
    session.close("client said QUIT")
    return OK


@command(
    "reset",
    arity=1,
    flags="noscript loading stale fast no_auth allow_busy",
    group="connection",
    since="6.2.0",
    summary="Puts the connection back into the state of a new one.",
    complexity="O(1)",
    on_store=False,
)
def reset(session: Session, argv: Args) -> Reply:
    session.reset()
    return Status(b"RESET")
