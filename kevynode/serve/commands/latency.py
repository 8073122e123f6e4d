"""LATENCY: the monitor of slow events, which a node does not have; SLOWLOG and INFO commandstats tell more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ... import errors
from ...errors import FIX, ErrorKind
from ...reply import Reply, Verbatim
from ...store.command import Args, command, container
from ...store.help import add_help
from ..session import Session

_NO_SAMPLES = ErrorKind("ERR", "No samples available for event '{}'", FIX)
_SAMPLING: Final = ("nondeterministic_output", "request_policy:all_nodes", "response_policy:special")

LATENCY: Final = container(
    "latency", group="server", since="2.8.13", summary="Samples of events that took long; a node takes none."
)
add_help(LATENCY, "2.8.13")


def _latency(
    name: str,
    arity: int,
    summary: str,
    syntax: str = "",
    tips: tuple[str, ...] = _SAMPLING,
    since: str = "2.8.13",
    complexity: str = "O(1)",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return command(
        name,
        arity=arity,
        flags="admin noscript loading stale",
        group="server",
        since=since,
        summary=summary,
        complexity=complexity,
        syntax=syntax,
        tips=tips,
        parent=LATENCY,
        on_store=False,
    )


@_latency("latest", 2, "The newest sample of each event: none.")
def latency_latest(session: Session, argv: Args) -> Reply:
    return []


@_latency("history", 3, "The samples of an event: none.", "event")
def latency_history(session: Session, argv: Args) -> Reply:
    return []


@_latency(
    "reset",
    -2,
    "Forgets samples; how many events had some: none.",
    "[event [event ...]]",
    ("request_policy:all_nodes", "response_policy:agg_sum"),
)
def latency_reset(session: Session, argv: Args) -> Reply:
    return 0


@_latency("graph", 3, "The samples of an event as a picture; refused, as there are none.", "event")
def latency_graph(session: Session, argv: Args) -> Reply:
    raise _NO_SAMPLES(errors.text(argv[2]))


@_latency("doctor", 2, "Says that nothing is sampled, and where to look instead.")
def latency_doctor(session: Session, argv: Args) -> Reply:
    return Verbatim(b"This node does not sample latencies. See SLOWLOG GET and INFO commandstats.\n")


@_latency(
    "histogram",
    -2,
    "Distributions of the times commands took: none are kept.",
    "[command [command ...]]",
    since="7.0.0",
    complexity="O(N) where N is the number of commands with latency information being retrieved.",
)
def latency_histogram(session: Session, argv: Args) -> Reply:
    return {}
