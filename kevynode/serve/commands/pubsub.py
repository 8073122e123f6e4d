"""SUBSCRIBE and its kin, PUBLISH, PUBSUB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ... import errors
from ...reply import NO_REPLY, Push, Reply, encode
from ...store.command import Args, KeySpec, command, container
from ...store.glob import glob_match
from ...store.help import UNKNOWN_FORM, add_help
from ..idle import own
from ..pubsub import PubSub
from ..session import Session

_SHARD_KEYS = (KeySpec(("NOT_KEY",), 1, ("range", -1, 1, 0)),)
_SHARD_KEY = (KeySpec(("NOT_KEY",), 1, ("range", 0, 1, 0)),)


def _confirm(session: Session, kind: bytes, name: bytes | None, count: int) -> None:
    """One confirmation, in its place among the replies: inside EXEC too."""
    session.write_now(encode(Push((kind, name, count)), session.protocol))


def _join(
    session: Session,
    names: Args,
    kind: bytes,
    mine: dict[bytes, None],
    listeners: dict[bytes, dict[Session, None]],
    count: Sequence[Mapping[bytes, None]],
) -> Reply:
    for name in names:
        if name not in mine:
            mine[name] = None
            PubSub.join(listeners, name, session)
        session.gates.add("subscribed")
        _confirm(session, kind, name, sum(map(len, count)))
    return NO_REPLY


def _leave(
    session: Session,
    names: Args,
    kind: bytes,
    mine: dict[bytes, None],
    listeners: dict[bytes, dict[Session, None]],
    count: Sequence[Mapping[bytes, None]],
) -> Reply:
    if not names and not mine:
        _confirm(session, kind, None, sum(map(len, count)))
    for name in names or list(mine):
        if name in mine:
            del mine[name]
            PubSub.leave(listeners, name, session)
        _confirm(session, kind, name, sum(map(len, count)))
    if not session.channels and not session.patterns and not session.shard_channels:
        session.gates.discard("subscribed")
    return NO_REPLY


@command(
    "subscribe",
    arity=-2,
    flags="pubsub noscript loading stale",
    group="pubsub",
    since="2.0.0",
    summary="Listens to messages sent to channels.",
    complexity="O(N) where N is the number of channels to subscribe to.",
    syntax="channel [channel ...]",
    on_store=False,
)
def subscribe(session: Session, argv: Args) -> Reply:
    mine = session.channels = own(session.channels)
    counted = (session.channels, session.patterns)
    return _join(session, argv[1:], b"subscribe", mine, session.server.pubsub.channels, counted)


@command(
    "unsubscribe",
    arity=-1,
    flags="pubsub noscript loading stale",
    group="pubsub",
    since="2.0.0",
    summary="Stops listening to channels, or to all of them.",
    complexity="O(N) where N is the number of channels to unsubscribe.",
    syntax="[channel [channel ...]]",
    on_store=False,
)
def unsubscribe(session: Session, argv: Args) -> Reply:
    mine, counted = own(session.channels), (session.channels, session.patterns)
    return _leave(session, argv[1:], b"unsubscribe", mine, session.server.pubsub.channels, counted)


@command(
    "psubscribe",
    arity=-2,
    flags="pubsub noscript loading stale",
    group="pubsub",
    since="2.0.0",
    summary="Listens to messages sent to channels whose names match patterns.",
    complexity="O(N) where N is the number of patterns to subscribe to.",
    syntax="pattern [pattern ...]",
    on_store=False,
)
def psubscribe(session: Session, argv: Args) -> Reply:
    mine = session.patterns = own(session.patterns)
    counted = (session.channels, session.patterns)
    return _join(session, argv[1:], b"psubscribe", mine, session.server.pubsub.patterns, counted)


@command(
    "punsubscribe",
    arity=-1,
    flags="pubsub noscript loading stale",
    group="pubsub",
    since="2.0.0",
    summary="Stops listening by patterns, or by all of them.",
    complexity="O(N) where N is the number of patterns to unsubscribe.",
    syntax="[pattern [pattern ...]]",
    on_store=False,
)
def punsubscribe(session: Session, argv: Args) -> Reply:
    mine, counted = own(session.patterns), (session.channels, session.patterns)
    return _leave(session, argv[1:], b"punsubscribe", mine, session.server.pubsub.patterns, counted)


@command(
    "ssubscribe",
    arity=-2,
    flags="pubsub noscript loading stale",
    keys=_SHARD_KEYS,
    group="pubsub",
    since="7.0.0",
    summary="Listens to messages sent to shard channels.",
    complexity="O(N) where N is the number of shard channels to subscribe to.",
    syntax="shardchannel [shardchannel ...]",
    on_store=False,
)
def ssubscribe(session: Session, argv: Args) -> Reply:
    mine = session.shard_channels = own(session.shard_channels)
    return _join(session, argv[1:], b"ssubscribe", mine, session.server.pubsub.shard_channels, (mine,))


@command(
    "sunsubscribe",
    arity=-1,
    flags="pubsub noscript loading stale",
    keys=_SHARD_KEYS,
    group="pubsub",
    since="7.0.0",
    summary="Stops listening to shard channels, or to all of them.",
    complexity="O(N) where N is the number of shard channels to unsubscribe.",
    syntax="[shardchannel [shardchannel ...]]",
    on_store=False,
)
def sunsubscribe(session: Session, argv: Args) -> Reply:
    mine = own(session.shard_channels)
    return _leave(session, argv[1:], b"sunsubscribe", mine, session.server.pubsub.shard_channels, (mine,))


@command(
    "publish",
    arity=3,
    flags="pubsub loading stale fast may_replicate",
    group="pubsub",
    since="2.0.0",
    summary="Sends a message to everybody who listens to a channel.",
    complexity=(
        "O(N+M) where N is the number of clients subscribed to the receiving channel"
        " and M is the total number of subscribed patterns (by any client)."
    ),
    syntax="channel message",
    on_store=False,
)
def publish(session: Session, argv: Args) -> Reply:
    return session.server.pubsub.publish(argv[1], argv[2])


@command(
    "spublish",
    arity=3,
    flags="pubsub loading stale fast may_replicate",
    keys=_SHARD_KEY,
    group="pubsub",
    since="7.0.0",
    summary="Sends a message to everybody who listens to a shard channel.",
    complexity="O(N) where N is the number of clients subscribed to the receiving shard channel.",
    syntax="shardchannel message",
    on_store=False,
)
def spublish(session: Session, argv: Args) -> Reply:
    return session.server.pubsub.publish_shard(argv[1], argv[2])


PUBSUB = container("pubsub", group="pubsub", since="2.8.0", summary="A container for Pub/Sub commands.")
add_help(PUBSUB, "6.2.0")


def _active(listeners: dict[bytes, dict[Session, None]], argv: Args) -> Reply:
    if len(argv) > 3:
        raise UNKNOWN_FORM(errors.text(argv[1]), "PUBSUB")
    if len(argv) == 2:
        return list(listeners)
    return [name for name in listeners if glob_match(argv[2], name)]


def _numbers(listeners: dict[bytes, dict[Session, None]], argv: Args) -> Reply:
    reply: list[bytes | int] = []
    for name in argv[2:]:
        reply += (name, len(listeners.get(name, ())))
    return reply


@command(
    "channels",
    arity=-2,
    flags="pubsub loading stale",
    group="pubsub",
    since="2.8.0",
    summary="The channels that have listeners.",
    complexity="O(N) where N is the number of active channels, and assuming constant time pattern matching.",
    syntax="[pattern]",
    parent=PUBSUB,
    on_store=False,
)
def pubsub_channels(session: Session, argv: Args) -> Reply:
    return _active(session.server.pubsub.channels, argv)


@command(
    "shardchannels",
    arity=-2,
    flags="pubsub loading stale",
    group="pubsub",
    since="7.0.0",
    summary="The shard channels that have listeners.",
    complexity="O(N) where N is the number of active shard channels, and assuming constant time pattern matching.",
    syntax="[pattern]",
    parent=PUBSUB,
    on_store=False,
)
def pubsub_shardchannels(session: Session, argv: Args) -> Reply:
    return _active(session.server.pubsub.shard_channels, argv)


@command(
    "numsub",
    arity=-2,
    flags="pubsub loading stale",
    group="pubsub",
    since="2.8.0",
    summary="How many clients listen to each of these channels.",
    complexity="O(N) for the NUMSUB subcommand, where N is the number of requested channels",
    syntax="[channel [channel ...]]",
    parent=PUBSUB,
    on_store=False,
)
def pubsub_numsub(session: Session, argv: Args) -> Reply:
    return _numbers(session.server.pubsub.channels, argv)


@command(
    "shardnumsub",
    arity=-2,
    flags="pubsub loading stale",
    group="pubsub",
    since="7.0.0",
    summary="How many clients listen to each of these shard channels.",
    complexity="O(N) for the SHARDNUMSUB subcommand, where N is the number of requested shard channels",
    syntax="[shardchannel [shardchannel ...]]",
    parent=PUBSUB,
    on_store=False,
)
def pubsub_shardnumsub(session: Session, argv: Args) -> Reply:
    return _numbers(session.server.pubsub.shard_channels, argv)


@command(
    "numpat",
    arity=2,
    flags="pubsub loading stale",
    group="pubsub",
    since="2.8.0",
    summary="How many patterns have listeners.",
    complexity="O(1)",
    parent=PUBSUB,
    on_store=False,
)
def pubsub_numpat(session: Session, argv: Args) -> Reply:
    return len(session.server.pubsub.patterns)
