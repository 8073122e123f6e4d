"""DEBUG: the part of it that test suites use. Refused unless ``enable-debug-command`` allows it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, TypeAlias

from ... import errors
from ...errors import FIX, ErrorKind, ReplyError
from ...reply import NO_REPLY, OK, Push, Reply, SetReply, Status, Verbatim, encode
from ...store.access import idle_seconds
from ...store.apply import Applier
from ...store.arguments import as_int, parse_int
from ...store.command import Args, command
from ...store.encoding import encoding
from ...store.help import UNKNOWN_FORM
from ...store.keyspace import Keyspace
from ...store.rebuild import rebuild_commands
from ...store.store import Store
from ..digest import data_digest, value_digest
from ..parameter_kinds import read_size
from ..session import Session

_NOT_ALLOWED = ErrorKind(
    "ERR",
    'DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local '
    "connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    "Set enable-debug-command in the [config] section, at nodes that are for tests only.",
)
_HISTORY_IN_USE = ErrorKind("ERR", "the history of a node that others may follow changes with its role only", FIX)
_NOT_LISTPACK = ErrorKind("ERR", "Not a listpack encoded object.", FIX)
_NOT_QUICKLIST = ErrorKind("ERR", "Not a quicklist encoded object.", FIX)
_NOT_HASHTABLE = ErrorKind("ERR", "The value stored at the specified key is not represented using an hash table", FIX)
_BAD_DATABASE = ErrorKind("ERR", "Out of range database", FIX)
_BAD_THRESHOLD = ErrorKind("ERR", "argument must be a memory value bigger than 1 and smaller than 4gb", FIX)
_BAD_TYPE = ErrorKind(
    "ERR",
    "Wrong protocol type name. Please use one of the following: "
    "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
    FIX,
)
_ONLY_RESP3 = ErrorKind("ERR", "RESP2 is not supported by this command", "Send HELLO 3 first.")
_NO_RELOAD = ErrorKind("ERR", "DEBUG RELOAD with NOSAVE or NOFLUSH needs a file, and there is none", "Leave it out.")
_BAD_RELOAD = ErrorKind("ERR", "DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.", FIX)
_NO_SLEEP = ErrorKind("ERR", "DEBUG SLEEP is not available in this node", "Leave it out.")
_TOO_MUCH = ErrorKind("ERR", "DEBUG POPULATE of more than 4gb is refused", "Ask for less.")

_POPULATE_LIMIT: Final = 4 << 30

_Form: TypeAlias = Callable[[Session, Args], Reply]


def _ok(session: Session, argv: Args) -> Reply:
    return OK


def _sleep(session: Session, argv: Args) -> Reply:
    try:
        seconds = float(argv[2])
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        if session.server.block_for is None:
            raise _NO_SLEEP()
        session.server.block_for(seconds)
    return OK


def _object(session: Session, argv: Args) -> Reply:
    store, key = session.server.store, argv[2]
    value = store.peek(key)
    if value is None:
        raise errors.NO_SUCH_KEY()
    name = encoding(key, value, store.deadline(key), store.settings).decode()
    shard = store.keyspace.directory[hash(key) >> store.keyspace.shift]
    idle = idle_seconds(store, shard, key)
    clock = (store.now // 1000 - idle) & 0xFFFFFF
    size = ""
    if len(argv) == 3:
        size = f"serializedlength:{sum(len(word) for line in rebuild_commands(key, value) for word in line)} "
    return Status(
        f"Value at:{id(value):#x} refcount:1 encoding:{name} {size}lru:{clock} lru_seconds_idle:{idle}".encode()
    )


def _require_encoding(session: Session, key: bytes, names: tuple[bytes, ...], error: ErrorKind) -> None:
    store = session.server.store
    value = store.peek(key)
    if value is None:
        raise errors.NO_SUCH_KEY()
    if encoding(key, value, store.deadline(key), store.settings) not in names:
        raise error()


def _listpack(session: Session, argv: Args) -> Reply:
    _require_encoding(session, argv[2], (b"listpack",), _NOT_LISTPACK)
    return Status(b"There is no listpack: values have one form each here")


def _quicklist(session: Session, argv: Args) -> Reply:
    _require_encoding(session, argv[2], (b"quicklist",), _NOT_QUICKLIST)
    return Status(b"There is no quicklist: values have one form each here")


def _change_history(session: Session, argv: Args) -> Reply:
    if session.server.replication is not None:
        raise _HISTORY_IN_USE()
    session.server.lone_primary.change_history()
    return OK


def _set_active_expire(session: Session, argv: Args) -> Reply:
    # As in Valkey, what does not begin with a number counts as 0.
    session.server.active_expire = (as_int(argv[2]) or 0) != 0
    return OK


def _packed_threshold(session: Session, argv: Args) -> Reply:
    size = read_size(argv[2].decode("latin-1"))
    if size is None or size > 1 << 32:
        raise _BAD_THRESHOLD()
    return OK


def _digest(session: Session, argv: Args) -> Reply:
    return Status(data_digest(session.server.store))


def _digest_value(session: Session, argv: Args) -> Reply:
    return [Status(value_digest(session.server.store, key)) for key in argv[2:]]


def _reload(session: Session, argv: Args) -> Reply:
    """Tell all data as canonical commands and build it anew from them: what a save and a load would do."""
    options = {word.upper() for word in argv[2:]}
    if not options <= {b"MERGE", b"NOFLUSH", b"NOSAVE"}:
        raise _BAD_RELOAD()
    if options & {b"NOFLUSH", b"NOSAVE"}:
        raise _NO_RELOAD()
    server = session.server
    store = server.store
    fresh = Store(store.random, settings=store.settings)
    fresh.now, fresh.epoch = store.now, store.epoch
    fresh.keyspace = Keyspace(store.keyspace.epoch)
    applier = Applier(fresh, server.table)
    for shard in list(store.keyspace.shards()):
        for key, value in list(shard.items()):
            deadline = shard.deadlines.get(key)
            if deadline is None or deadline >= store.now or not store.expire(key):
                applier.apply_all(rebuild_commands(key, value, deadline))
                fresh.commit()
    store.keyspace, store.used = fresh.keyspace, fresh.used
    store.field_deadline_keys = fresh.field_deadline_keys
    return OK


def _htstats(session: Session, argv: Args) -> Reply:
    if parse_int(argv[2]) != 0:
        raise _BAD_DATABASE()
    keyspace = session.server.store.keyspace
    shards = list(keyspace.shards())
    deadlines = sum(len(shard.deadlines) for shard in shards)
    return Verbatim(
        f"[Dictionary HT]\n shards: {len(shards)}\n number of entries: {len(keyspace)}\n"
        f"[Expires HT]\n number of entries: {deadlines}\n".encode()
    )


def _htstats_key(session: Session, argv: Args) -> Reply:
    store = session.server.store
    _require_encoding(session, argv[2], (b"hashtable", b"skiplist"), _NOT_HASHTABLE)
    value = store.peek(argv[2])
    assert value is not None
    return Verbatim(f" number of entries: {len(value)}\n".encode())


def _error(session: Session, argv: Args) -> Reply:
    # One word and the rest, as a client would split the line.
    prefix, _, text = errors.text(argv[2]).partition(" ")
    return ReplyError(prefix, text)


def _log(session: Session, argv: Args) -> Reply:
    session.server.log.info("debug_log", message=errors.text(argv[2]))
    return OK


def _populate(session: Session, argv: Args) -> Reply:
    """Make string keys ``prefix:0`` … that do not exist yet; their values are ``value:<n>``, brought to a size."""
    store = session.server.store
    count = as_int(argv[2])
    size = as_int(argv[4]) if len(argv) == 5 else 0
    if count is None or count < 0 or size is None or size < 0:
        raise errors.MUST_BE_POSITIVE()
    if count * max(size, 64) > _POPULATE_LIMIT:
        raise _TOO_MUCH()
    prefix = argv[3] if len(argv) > 3 else b"key"
    ownership = session.server.ownership
    if ownership is not None:
        error = ownership.check(b"%b:%d" % (prefix, number) for number in range(count))
        if error is not None:
            raise error
    for number in range(count):
        key = b"%b:%d" % (prefix, number)
        if store.lookup(key) is None:
            value = b"value:%d" % number
            if size:
                value = value[:size].ljust(size, b"\0")
            store.put(key, value)
            store.emit((b"SET", key, value), key)
    return OK


def _raw(session: Session, wire: bytes) -> Reply:
    session.write_now(wire)
    return NO_REPLY


def _protocol(session: Session, argv: Args) -> Reply:
    """A reply of each type, for clients' tests."""
    resp3 = session.protocol == 3
    kind = argv[2].lower()
    plain: dict[bytes, Reply] = {
        b"string": b"Hello World",
        b"integer": 12345,
        b"double": 3.141,
        b"null": None,
        b"array": [0, 1, 2],
        b"set": SetReply((0, 1, 2)),
        b"map": {0: False, 1: True, 2: False},
        b"verbatim": Verbatim(b"This is a verbatim\nstring"),
        b"true": True,
        b"false": False,
    }
    if kind in plain:
        return plain[kind]
    if kind == b"bignum":
        number = b"1234567999999999999999999999999999999"
        return _raw(session, b"(%b\r\n" % number) if resp3 else number
    if kind == b"attrib":
        if resp3:
            _raw(session, b"|1\r\n" + encode(b"key-popularity", 3) + encode([b"key:123", 90], 3))
        return b"Some real reply following the attribute"
    if kind == b"push":
        if not resp3:
            raise _ONLY_RESP3()
        session.write_push(encode(Push((b"server-cpu-usage", 42)), 3))
        return b"Some real reply following the push reply"
    raise _BAD_TYPE()


def _help(session: Session, argv: Args) -> Reply:
    lines = ["DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"]
    for name, (_, _, _, syntax, meaning) in sorted(_FORMS.items()):
        if name != b"HELP":
            lines += [f"{name.decode()} {syntax}".rstrip(), f"    {meaning}"]
    return [Status(line.encode()) for line in (*lines, "HELP", "    Print this help.")]


_WITHOUT_EFFECT: Final = "Accepted, without effect."

# Subcommand -> what does it, fewest and most arguments behind its name, how it is written, and what it does.
_FORMS: Final[dict[bytes, tuple[_Form, int, int, str, str]]] = {
    b"CHANGE-REPL-ID": (_change_history, 0, 0, "", "Gives the node's history a new id."),
    b"CLIENT-ENFORCE-REPLY-LIST": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"DICT-RESIZING": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"DIGEST": (_digest, 0, 0, "", "A digest of all data, the same for equal data."),
    b"DIGEST-VALUE": (_digest_value, 0, 1 << 20, "<key> [<key> ...]", "The digests of these values."),
    b"ERROR": (_error, 1, 1, "<string>", "Replies with this error."),
    b"HASHTABLE-CAN-ABORT-SHRINK": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"HELP": (_help, 0, 0, "", ""),
    b"HTSTATS": (_htstats, 1, 2, "<dbid> [full]", "How the keyspace is divided."),
    b"HTSTATS-KEY": (_htstats_key, 1, 2, "<key> [full]", "How many entries a large value has."),
    b"LISTPACK": (_listpack, 1, 1, "<key>", "Checks that a value is a small one."),
    b"LOG": (_log, 1, 1, "<message>", "Writes a line to the log."),
    b"OBJECT": (_object, 1, 2, "<key> [fast]", "Encoding, size and idle time of a value."),
    b"PAUSE-CRON": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"POPULATE": (_populate, 1, 3, "<count> [<prefix>] [<size>]", "Makes string keys."),
    b"PROTOCOL": (_protocol, 1, 1, "<type>", "Replies with a value of this type."),
    b"QUICKLIST": (_quicklist, 1, 2, "<key> [<0|1>]", "Checks that a value is a large list."),
    b"QUICKLIST-PACKED-THRESHOLD": (_packed_threshold, 1, 1, "<size>", _WITHOUT_EFFECT),
    b"RELOAD": (_reload, 0, 3, "[option ...]", "Builds all data anew from the commands that describe it."),
    b"REPLYBUFFER": (_ok, 2, 2, "<option> <value>", _WITHOUT_EFFECT),
    b"SET-ACTIVE-EXPIRE": (_set_active_expire, 1, 1, "<0|1>", "Whether keys expire while nobody asks for them."),
    b"SET-DISABLE-DENY-SCRIPTS": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"SET-SKIP-CHECKSUM-VALIDATION": (_ok, 1, 1, "<0|1>", _WITHOUT_EFFECT),
    b"SLEEP": (_sleep, 1, 1, "<seconds>", "Holds the whole node up."),
}


def _is_local(session: Session) -> bool:
    if session.kind != "tcp":
        return True
    try:
        return ip_address(session.peer.rpartition(":")[0].strip("[]")).is_loopback
    except ValueError:
        return False


@command(
    "debug",
    arity=-2,
    flags="admin noscript loading stale",
    group="server",
    since="1.0.0",
    summary="What test suites need; refused unless the configuration allows it.",
    complexity="Depends on subcommand.",
    syntax="subcommand [arg [arg ...]]",
    on_store=False,
)
def debug(session: Session, argv: Args) -> Reply:
    parameters = session.server.parameters
    allowed = "no" if parameters is None else parameters.value("enable-debug-command")
    if not (allowed == "yes" or (allowed == "local" and _is_local(session))):
        raise _NOT_ALLOWED()
    form, fewest, most, _, _ = _FORMS.get(argv[1].upper(), (_ok, 1, 0, "", ""))
    if not fewest <= len(argv) - 2 <= most:
        raise UNKNOWN_FORM(errors.text(argv[1]), "DEBUG")
    return form(session, argv)
