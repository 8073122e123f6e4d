"""The commands of the command line: reads arguments, prints, and returns the exit status. It decides nothing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from kevynode import __version__
from kevynode.cli_output import fail, say
from kevynode.config import ConfigError, NodeConfig, Setting, flag
from kevynode.log import Logger, open_log
from kevynode.probe import PASSWORD, ErrorReply, ProbeError, command_words, connect, parse_info
from kevynode.serve.parameters import without_effect
from kevynode.status import in_columns, moves, peers, replication_state, scopes, tables
from kevynode.twins import IMPLEMENTATION

__all__ = ["run_command"]

_DEFAULT_ADDRESS = "127.0.0.1:6004"
_SECONDS_LIMIT = 86400
_PASSWORD_HELP = f"A password is taken from {PASSWORD} in the environment."

# Flags of `run` that set a key as they stand: attribute of the parsed arguments, flag, key path.
_KEY_FLAGS = (
    ("bind", "--bind", "server.bind"),
    ("port", "--port", "server.port"),
    ("dir", "--dir", "server.data_dir"),
    ("node_id", "--node-id", "cluster.node_id"),
    ("log_level", "--log-level", "log.level"),
)


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (``sys.argv`` if None) and return its exit status; blocks until it is done."""
    parsed, unknown = _parser().parse_known_args(arguments)
    if unknown:
        # With the usage of the command that was meant.
        parsed.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
    status: int = parsed.command(parsed)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kevynode", description="A Redis-compatible cluster node.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"kevynode {__version__} ({IMPLEMENTATION})")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(
        commands,
        "run",
        "start a node and serve until SIGTERM or SIGINT",
        "Prints one line `kevynode ready id=ID client=HOST:PORT replication=HOST:PORT` when it serves. A flag goes "
        "before the environment (KEVYNODE_<SECTION>_<KEY>), that before the file, and the file before the default.",
    )
    run.add_argument("--config", metavar="FILE", help="TOML file to read")
    run.add_argument("--port", metavar="N", help="client port; 0: any free port; default: 6004")
    run.add_argument(
        "--bind",
        metavar="ADDR",
        action="append",
        help="address to listen on, default: 127.0.0.1; may be given several times",
    )
    run.add_argument("--dir", metavar="DIR", help="folder of everything the node writes; default: this one")
    run.add_argument("--node-id", metavar="ID", help="this node's id among the peers")
    run.add_argument(
        "--replicaof",
        metavar="HOST:PORT",
        help="be a replica of the primary with this replication address (its client port + 10000)",
    )
    run.add_argument("--no-aof", action="store_true", help="keep no append-only file")
    run.add_argument("--trust-config", action="store_true", help="open declared scopes without asking the peers")
    run.add_argument("--start-empty", action="store_true", help="open scopes without looking for a copy of lost data")
    run.add_argument("--log-level", metavar="L", help="debug, info, warning or error; default: info")
    run.set_defaults(command=_run)

    check = _command(
        commands,
        "check-config",
        "report every mistake in a configuration file",
        "Exit status: 0 it is good, 1 it is not; each mistake is a line on standard error. Nothing but the file is "
        "looked at: not whether folders are there, or ports are free.",
    )
    check.add_argument("file", metavar="FILE", help="TOML file to check")
    check.set_defaults(command=_check_config)

    status = _command(
        commands,
        "status",
        "show the state of nodes",
        f"Exit status: 0 all of them have answered, 1 one has not. {_PASSWORD_HELP}",
    )
    status.add_argument("addresses", metavar="HOST:PORT", nargs="*", help=f"default: {_DEFAULT_ADDRESS}")
    status.add_argument("--json", action="store_true", help="everything the nodes tell, as JSON")
    status.set_defaults(command=_status)

    move = _command(
        commands,
        "move-scope",
        "move a key prefix to another writer",
        "Exit status: 0 it is done, or was before; 1 nothing has changed; 3 it is not known yet how it ends; "
        f"130 Ctrl-C, which calls the move off. {_PASSWORD_HELP}",
    )
    move.add_argument("prefix", metavar="PREFIX", help="the prefix of a declared scope")
    action = move.add_mutually_exclusive_group(required=True)
    action.add_argument("--to", metavar="ID", help="the node that is to write the prefix")
    action.add_argument("--status", action="store_true", help="show what the nodes know of its moves")
    action.add_argument("--abort", action="store_true", help="call a move off that is not decided")
    action.add_argument(
        "--resolve",
        choices=("commit", "abort"),
        help="decide a move in place of a node that never comes back: the other one takes the prefix, or drops it",
    )
    move.add_argument(
        "--at", metavar="HOST:PORT", default=_DEFAULT_ADDRESS, help=f"any of the nodes; default: {_DEFAULT_ADDRESS}"
    )
    move.add_argument("--timeout", metavar="S", type=_seconds, help="call it off after so many seconds; default: 30")
    move.add_argument("--force", action="store_true", help="move to a node that keeps no files, too")
    move.set_defaults(command=_move_scope)
    _add_file_commands(commands)
    for command in commands.choices.values():
        command.set_defaults(usage_error=command.error)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, purpose: str, more: str
) -> argparse.ArgumentParser:
    """A command of the command line: its ``purpose`` is in the list of all, ``more`` besides in its own help."""
    description = f"{purpose[0].upper()}{purpose[1:]}. {more}"
    return commands.add_parser(name, help=purpose, description=description, allow_abbrev=False)


def _add_file_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands about files."""
    check = _command(
        commands,
        "check-aof",
        "check and repair an append-only folder",
        "Exit status: 0 all files are as they were written, 1 one is not. The node of that folder must not run.",
    )
    check.add_argument(
        "dir", metavar="DIR", nargs="?", default=".", help="data directory, or its appendonlydir; default: this folder"
    )
    check.add_argument("--fix", action="store_true", help="cut off what is not as it was written, after a question")
    check.add_argument("--yes", action="store_true", help="with --fix: do not ask")
    check.set_defaults(command=_check_aof)

    taking = _command(
        commands,
        "import",
        "put the data of a dump or of append-only files into a running node",
        "Everything is read before anything is sent; the first error ends it. Exit status: 0 all keys have arrived, "
        f"1 not. {_PASSWORD_HELP}",
    )
    taking.add_argument(
        "path", metavar="PATH", help="a dump, an append-only file, an export, or the folder of one of these"
    )
    taking.add_argument("--at", metavar="HOST:PORT", default=_DEFAULT_ADDRESS, help=f"default: {_DEFAULT_ADDRESS}")
    taking.add_argument("--scope", metavar="PREFIX", type=_prefix, help="only keys that begin with this")
    taking.add_argument(
        "--database", metavar="N", type=_database, help="the database to read, if several of them hold data"
    )
    taking.add_argument("--replace", action="store_true", help="first remove what the node has, under the scope if any")
    taking.add_argument("--without-streams", action="store_true", help="leave streams out")
    taking.set_defaults(command=_import)

    giving = _command(
        commands,
        "export",
        "write data as commands for redis-cli --pipe",
        "What is written is as of one moment. Exit status: 0 everything is written, 1 not.",
    )
    place = giving.add_mutually_exclusive_group()
    place.add_argument("--at", metavar="HOST:PORT", help=f"a running node's address; default: {_DEFAULT_ADDRESS}")
    place.add_argument(
        "--replication", metavar="HOST:PORT", help="its replication address, if that is not client port + 10000"
    )
    place.add_argument("--dir", metavar="DIR", help="the data directory of a node that does not run")
    giving.add_argument("--scope", metavar="PREFIX", type=_prefix, help="only keys that begin with this")
    giving.add_argument("--output", metavar="FILE", help="write a file instead of standard output")
    giving.set_defaults(command=_export)


def _prefix(text: str) -> bytes:
    if not text:
        # Rather a variable that is not set than the wish for everything.
        raise argparse.ArgumentTypeError("the prefix is empty")
    return command_words([text])[0]


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a database")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value <= _SECONDS_LIMIT:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, and at most {_SECONDS_LIMIT}")
    return value


def _fail_config(error: ConfigError) -> int:
    for problem in error.problems:
        fail(problem)
    return 1


def _flags(parsed: argparse.Namespace) -> Iterator[Setting]:
    for attribute, name, path in _KEY_FLAGS:
        value = getattr(parsed, attribute)
        if value is not None:
            yield flag(name, path, " ".join(value) if isinstance(value, list) else value)
    if parsed.replicaof is not None:
        yield flag("--replicaof", "replication.role", "replica")
        yield flag("--replicaof", "replication.upstream", parsed.replicaof)
    if parsed.no_aof:
        yield flag("--no-aof", "persistence.aof", "no")


def _run(parsed: argparse.Namespace) -> int:
    try:
        config = NodeConfig.load(
            parsed.config,
            flags=_flags(parsed),
            trust_config=parsed.trust_config,
            start_empty=parsed.start_empty,
        )
    except ConfigError as error:
        return _fail_config(error)
    try:
        log = open_log(config.log)
    except OSError as error:
        return fail(f"log.output: {config.log.output}: {error.strerror or error}")
    with log:
        _warn(config, log)
        return _serve(config, log)


def _warn(config: NodeConfig, log: Logger) -> None:
    for warning in config.warnings:
        log.warning("config", warning=warning)
    for name in without_effect(config.parameters):
        log.warning("config_without_effect", key=f"config.{name}", reason="accepted for Valkey's sake only")


def _serve(config: NodeConfig, log: Logger) -> int:
    import trio

    from kevynode.run import StartError, run

    try:
        trio.run(run, config, log)
    except StartError as error:
        # Standard error gets the one line that people and scripts look for; a log elsewhere gets it too.
        if config.log.output != "stderr":
            log.error("start_failed", reason=str(error))
        return fail(error)
    except KeyboardInterrupt:
        # Ctrl-C before the node watches for signals: it has not served anybody yet.
        log.info("interrupted")
    return 0


def _check_config(parsed: argparse.Namespace) -> int:
    try:
        config = NodeConfig.load(parsed.file, environment={})
    except ConfigError as error:
        return _fail_config(error)
    for warning in config.warnings:
        say(f"warning: {warning}")
    for name in without_effect(config.parameters):
        say(f"warning: {parsed.file}: config.{name}: accepted for Valkey's sake only, has no effect")
    say(f"{parsed.file}: good")
    return 0


def _status(parsed: argparse.Namespace) -> int:
    states = [_state(address) for address in parsed.addresses or [_DEFAULT_ADDRESS]]
    if parsed.json:
        say(json.dumps(states, indent=2))
    else:
        _print_table(states)
    return 0 if all(state["ok"] for state in states) else 1


def _state(address: str) -> dict[str, Any]:
    """What one node tells about itself, or why it tells nothing."""
    try:
        with connect(address) as probe:
            reply = probe.call(b"INFO")
            if not isinstance(reply, bytes):
                raise ProbeError(f"{address} answered INFO with no text")
    except (ProbeError, ErrorReply) as error:
        return {"address": address, "ok": False, "error": str(error)}
    sections = parse_info(reply.decode("utf-8", "replace"))
    return {
        "address": address,
        "ok": True,
        "replication": replication_state(sections),
        "scopes": scopes(sections),
        "moves": moves(sections),
        "peers": peers(sections),
        "info": sections,
    }


def _print_table(states: list[dict[str, Any]]) -> None:
    good = [(str(state["address"]), state["info"]) for state in states if state["ok"]]
    for number, rows in enumerate(tables(good)):
        if number:
            say("")
        say("\n".join(in_columns(rows)))
    for state in states:
        if not state["ok"]:
            fail(state["error"])


def _move_scope(parsed: argparse.Namespace) -> int:
    from kevynode.cli_move import MoveOptions, abort_move, resolve_move, run_move, show_moves

    if parsed.to is None and (parsed.timeout is not None or parsed.force):
        parsed.usage_error("--timeout and --force go with --to")
    if parsed.status:
        return show_moves(parsed.prefix, parsed.at)
    if parsed.abort:
        return abort_move(parsed.prefix, parsed.at)
    if parsed.resolve is not None:
        return resolve_move(parsed.prefix, parsed.at, parsed.resolve)
    return run_move(MoveOptions(parsed.prefix, parsed.to, parsed.at, parsed.timeout, parsed.force))


def _check_aof(parsed: argparse.Namespace) -> int:
    from kevynode.cli_check_aof import check_aof

    return check_aof(parsed.dir, fixes=parsed.fix, asks=not parsed.yes)


def _import(parsed: argparse.Namespace) -> int:
    from kevynode.cli_import import Options, run_import

    scope = parsed.scope or b""
    return run_import(Options(parsed.path, parsed.at, scope, parsed.database, parsed.replace, parsed.without_streams))


def _export(parsed: argparse.Namespace) -> int:
    from kevynode.cli_export import Options, run_export

    scope = parsed.scope or b""
    address = parsed.at or _DEFAULT_ADDRESS
    return run_export(Options(address, parsed.replication, parsed.dir, scope, parsed.output))
