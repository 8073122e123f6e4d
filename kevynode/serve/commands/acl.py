"""ACL: there is one user, ``default``, who may do everything; the password is the parameter ``requirepass``."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import Reply, SetReply
from ...store.command import Args, command, container
from ...store.help import UNKNOWN_FORM, add_help
from ..session import Session

_UNKNOWN_CATEGORY = ErrorKind("ERR", "Unknown category '{}'", FIX)
_OPEN: Final = "noscript loading stale"
_ADMIN: Final = "admin noscript loading stale"
# In Valkey's order.
_CATEGORIES: Final = (
    "keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow blocking "
    "dangerous connection transaction scripting"
).split()

ACL: Final = container("acl", group="server", since="6.0.0", summary="Shows the one user there is, and the categories.")
add_help(ACL, "6.0.0")


def _acl(
    name: str, arity: int, flags: str, summary: str, syntax: str = "", complexity: str = "O(1)"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=arity,
        flags=flags,
        group="server",
        since="6.0.0",
        summary=summary,
        complexity=complexity,
        syntax=syntax,
        parent=ACL,
        on_store=False,
    )


def _password_hash(session: Session) -> str | None:
    password = session.server.password
    return None if password is None else sha256(password).hexdigest()


@_acl("whoami", 2, _OPEN, "The user of this connection.")
def acl_whoami(session: Session, argv: Args) -> Reply:
    return b"default"


@_acl("users", 2, _ADMIN, "The names of the users: one.", complexity="O(N). Where N is the number of configured users.")
def acl_users(session: Session, argv: Args) -> Reply:
    return [b"default"]


@_acl("list", 2, _ADMIN, "The users with their rules.", complexity="O(N). Where N is the number of configured users.")
def acl_list(session: Session, argv: Args) -> Reply:
    password = _password_hash(session)
    secret = "nopass" if password is None else f"#{password}"
    return [f"user default on {secret} ~* &* +@all".encode()]


@_acl(
    "getuser",
    3,
    _ADMIN,
    "The rules of a user.",
    "username",
    "O(N). Where N is the number of password, command and pattern rules that the user has.",
)
def acl_getuser(session: Session, argv: Args) -> Reply:
    if argv[2] != b"default":
        return None
    password = _password_hash(session)
    return {
        b"flags": SetReply((b"on", b"nopass") if password is None else (b"on",)),
        b"passwords": [] if password is None else [password.encode()],
        b"commands": b"+@all",
        b"keys": b"~*",
        b"channels": b"&*",
        b"databases": b"alldbs",
        b"selectors": [],
    }


@_acl(
    "cat",
    -2,
    _OPEN,
    "The categories of commands, or the commands of one.",
    "[category]",
    "O(1) since the categories and commands are a fixed set.",
)
def acl_cat(session: Session, argv: Args) -> Reply:
    if len(argv) > 3:
        raise UNKNOWN_FORM(errors.text(argv[1]), "ACL")
    if len(argv) == 2:
        return [name.encode() for name in _CATEGORIES]
    category = errors.text(argv[2]).lower()
    if category not in _CATEGORIES:
        raise _UNKNOWN_CATEGORY(errors.text(argv[2]))
    return [entry.full_name.encode() for entry in session.server.all_commands() if category in entry.categories]
