"""The command line of the comparison: ``python -m bench compare``."""

import argparse
import math
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench import chart
from bench.against import UnusableRun, read_run
from bench.compare import Busy, Options, Report, compare, find_generator, new_report
from bench.report import headline, render_json, render_report
from bench.servers import ATTACH, TARGETS, Unavailable
from bench.workloads import USUAL, WORKLOADS

BUSY = 3
"""The exit code when others used too much of the machine for figures to be shown."""


def _names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser for a comma-separated list of known names, or of ports of running servers."""

    def parse(text: str) -> tuple[str, ...]:
        lookup = {name.lower(): name for name in known}
        names = []
        for word in filter(None, (part.strip() for part in text.replace("/", ",").split(","))):
            if word.startswith(ATTACH) and "valkey" in lookup and word.removeprefix(ATTACH).isdigit():
                names.append(word)
            elif word.lower() in lookup:
                names.append(lookup[word.lower()])
            else:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        if not names:
            raise argparse.ArgumentTypeError("the list is empty")
        return tuple(dict.fromkeys(names))

    return parse


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _depths(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_positive(word) for word in text.split(",")))


def _seconds(text: str) -> float:
    value = float(text)
    if not (value >= 0.05 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("a round lasts at least 0.05 seconds")
    return value


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="python -m bench compare",
        description="Compare a kevynode node with other servers on this machine; see bench/README.md.",
    )
    parser.add_argument(
        "--servers",
        type=_names(list(TARGETS)),
        help=f"comma-separated, of {', '.join(TARGETS)} and {ATTACH}N for one that runs on that loopback port "
        "(default: all that are available)",
    )
    parser.add_argument(
        "--commands",
        type=_names(list(WORKLOADS)),
        default=USUAL,
        help=f"of {', '.join(WORKLOADS)} (default: all but LPOP)",
    )
    parser.add_argument("--depths", type=_depths, default=(1, 16, 100), help="requests per round trip (1,16,100)")
    parser.add_argument("--connections", type=_positive, default=50, help="clients at a time (50)")
    parser.add_argument("--rounds", type=_positive, default=5, help="rounds whose median counts (5)")
    parser.add_argument("--seconds", type=_seconds, default=1.0, help="about how long one round lasts (1)")
    parser.add_argument("--generator", choices=["auto", "redis-benchmark", "own"], default="auto", help="(auto)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report in Markdown to FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the ratios into FILE (PNG; needs matplotlib)")
    parser.add_argument("--against", type=Path, metavar="FILE", help="show what has changed since that run file")
    parser.add_argument("--anyway", action="store_true", help="report, marked, although others use the machine")
    return parser


def _write(report: Report, arguments: argparse.Namespace, before: dict[str, Any] | None) -> None:
    print(render_report(report, markdown=False, before=before), end="")
    if arguments.markdown:
        arguments.markdown.write_text(render_report(report, markdown=True, before=before))
    if arguments.json:
        arguments.json.write_text(render_json(report))
    if arguments.chart and report.rows:
        chart.draw(report.rows, report.baseline or "", headline(report), arguments.chart)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends us like Ctrl-C does: the servers are stopped on the way out."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison.

    Returns 0; 1 when nothing could be measured; 2 for a wrong argument; 3 when rows, or all of it, were refused
    because of others' load; 130 if interrupted.
    """
    arguments = build_parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _end)
    code = 0
    before = None
    try:
        if arguments.chart:
            chart.check()
        if arguments.against:
            before = read_run(arguments.against)
        options = Options(
            servers=arguments.servers or tuple(TARGETS),
            commands=arguments.commands,
            depths=arguments.depths,
            connections=arguments.connections,
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            generator=find_generator(arguments.generator),
            anyway=arguments.anyway,
        )
        report = new_report(options)
    except (Unavailable, UnusableRun) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        compare(report, arguments.servers or (), lambda line: print(line, file=sys.stderr))
    except Busy as error:
        print(f"bench: {error}: wait until they are done, or say --anyway", file=sys.stderr)
        return BUSY
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        report.warnings.append("interrupted: only what was complete is shown")
        code = 130
    _write(report, arguments, before)
    return code or (BUSY if report.withheld else 0 if report.rows else 1)


if __name__ == "__main__":
    sys.exit(main())
