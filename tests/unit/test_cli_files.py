"""check-aof, import and export as far as no running node is needed: terminals, odd paths, broken links, Ctrl-C."""

from __future__ import annotations

import io
import os
import random
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.append_only import Node

from kevynode import cli_export, cli_import, cli_output
from kevynode.cli import main
from kevynode.cli_output import Progress, counted, shown
from kevynode.disk import SystemDisk
from kevynode.persist.folder import lock_data_dir
from kevynode.resp import RequestParser
from kevynode.store.staging import Staging
from kevynode.transfer import export_pieces

SET = b"*3\r\n$3\r\nSET\r\n$2\r\n%b\r\n$1\r\nx\r\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data directory of a node that has stopped: ten keys in an increment."""
    directory = tmp_path / "data"
    directory.mkdir()
    node = Node(SystemDisk(), data_dir=str(directory))
    assert node.start()
    for number in range(10):
        node.do("SET", f"k{number}", "v")
        node.writer.write()
    node.writer.close()
    node.folder.close()
    return directory


def increment(directory: Path) -> Path:
    [path] = (directory / "appendonlydir").glob("*.incr.aof")
    return path


def tear(directory: Path) -> int:
    """Leave an unfinished record at the end; where it begins."""
    path = increment(directory)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSE")
    return size


# -- check-aof --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1), ("yesterday\n", 1)],
)
def test_a_repair_is_asked_for_at_a_terminal(
    answer: str, status: int, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    size = tear(data)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["check-aof", "--fix", str(data)]) == status
    captured = capsys.readouterr()
    assert f"is to be cut from {size + 10:,} bytes to {size:,}: 10 bytes go" in captured.out
    assert captured.err == "Continue? [y/N]: " + ("" if status == 0 else "kevynode: nothing was cut\n")
    assert increment(data).stat().st_size == (size if status == 0 else size + 10)


@pytest.mark.parametrize("place", ["data", "appendonlydir"])
def test_the_folder_one_stands_in(
    place: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data if place == "data" else data / place)
    assert main(["check-aof"]) == 0
    assert "good" in capsys.readouterr().out
    assert main(["export", "--dir", "."]) == 0
    assert capsys.readouterr().out.count("SET") == 10
    lock = lock_data_dir(SystemDisk(), str(data))
    for command in (["check-aof"], ["export", "--dir", "."]):
        assert main(command) == 1
        assert f"is in use by process {os.getpid()}" in capsys.readouterr().err
    lock.release()


def test_two_files_that_are_wrong_cannot_be_repaired(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tear(data)
    folder = data / "appendonlydir"
    (folder / "second.aof").write_bytes(increment(data).read_bytes())
    with (folder / "appendonly.aof.manifest").open("a") as manifest:
        manifest.write("file second.aof seq 9 type i\n")
    before = increment(data).read_bytes()
    assert main(["check-aof", "--fix", "--yes", str(data)]) == 1
    captured = capsys.readouterr()
    assert "Nothing can be cut off that would make it good" in captured.err
    assert captured.out.count("are good, with") == 2
    assert increment(data).read_bytes() == before


def test_folders_without_files_of_a_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(path: Path) -> str:
        assert main(["check-aof", str(path)]) == 1
        return capsys.readouterr().err

    assert said(tmp_path / "none") == f"kevynode: {tmp_path}/none: No such file or directory\n"
    assert said(tmp_path) == f"kevynode: {tmp_path} has no appendonlydir\n"
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    assert "no node has written anything there" in said(tmp_path)
    (folder / "appendonly.aof.manifest").write_text("nonsense\n")
    assert "appendonly.aof.manifest: line 1: " in said(tmp_path)
    (folder / "appendonly.aof.manifest").write_text("file a.rdb seq 1 type b\n")
    (folder / "a.rdb").write_bytes(b"REDIS0011")
    assert "was not written by kevynode" in said(folder)
    assert f"`kevynode import {tmp_path}`" in said(tmp_path)
    assert not (tmp_path / "kevynode.lock").exists()


def test_ctrl_c_while_files_are_checked(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tear(data)
    size = increment(data).stat().st_size

    def interrupt() -> str:
        raise KeyboardInterrupt

    terminal = Terminal()
    monkeypatch.setattr(terminal, "readline", interrupt)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert main(["check-aof", "--fix", str(data)]) == 130
    assert capsys.readouterr().err == "Continue? [y/N]: kevynode: interrupted\n"
    assert increment(data).stat().st_size == size
    lock_data_dir(SystemDisk(), str(data)).release()


# -- export -----------------------------------------------------------------------------------------------------------


def test_an_export_takes_the_place_of_a_file_whole(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    assert main(["export", "--dir", str(data), "--scope", "k3", "--output", str(link)]) == 0
    assert link.is_symlink()
    assert target.read_bytes() == SET.replace(b"x", b"v") % b"k3"
    assert capsys.readouterr().out.startswith("exported 1 key, 28 bytes, in ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "link", "target"]


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [(KeyboardInterrupt(), 130, "interrupted"), (OSError(28, "No space left on device"), 1, "No space left on device")],
)
def test_an_export_that_is_broken_off_leaves_the_file_as_it_was(
    failure: BaseException,
    status: int,
    said: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pieces(*_: Any, **__: Any) -> Iterator[Any]:
        yield from original(*_, **__)
        raise failure

    original = export_pieces
    monkeypatch.setattr(cli_export, "export_pieces", pieces)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out").write_bytes(b"old")
    assert main(["export", "--dir", str(data), "--output", str(folder / "out")]) == status
    assert capsys.readouterr().err == f"kevynode: {said}\n"
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("out", b"old")]


def test_an_export_to_where_nothing_can_be_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--dir", str(data), "--output", str(tmp_path / "none" / "out")]) == 1
    assert capsys.readouterr().err.endswith("No such file or directory\n")


def test_an_export_into_a_device_leaves_it_there(data: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    assert main(["export", "--dir", str(data), "--output", str(pipe)]) == 0
    reader.join(10)
    assert received[0].count(b"SET") == 10
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_ctrl_c_while_several_addresses_are_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import trio

    def run(*_: object) -> Staging:
        raise BaseExceptionGroup("several", [KeyboardInterrupt()])

    monkeypatch.setattr(trio, "run", run)
    assert main(["export"]) == 130
    assert capsys.readouterr().err == "kevynode: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--at", "h:1", "--dir", "d"],
        ["export", "--scope", ""],
        ["import"],
        ["import", "x", "--scope="],
        ["import", "x", "--database", "-1"],
        ["import", "x", "--database", "x"],
        ["check-aof", "a", "b"],
    ],
)
def test_wrong_use(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


# -- import -----------------------------------------------------------------------------------------------------------


class FakeNode:
    """Answers each command with what ``answer`` says, on any number of connections; None closes the connection."""

    def __init__(self, answer: Callable[[list[bytes]], bytes | None]) -> None:
        self.commands: list[list[bytes]] = []
        self._answer = answer

    def serve(self, connection: socket.socket) -> None:
        parser = RequestParser()
        with connection, suppress(ConnectionError):
            while data := connection.recv(65536):
                for command in parser.feed(data):
                    self.commands.append(command)
                    reply = self._answer(command)
                    if reply is None:
                        return
                    connection.sendall(reply)


@contextmanager
def fake_node(answer: Callable[[list[bytes]], bytes | None]) -> Iterator[tuple[FakeNode, str]]:
    node = FakeNode(answer)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ending = threading.Event()

        def accept() -> None:
            while not ending.is_set():
                with suppress(TimeoutError):
                    node.serve(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield node, f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ending.set()
            thread.join(10)
            assert not thread.is_alive()


def plain(command: list[bytes]) -> bytes:
    return b":0\r\n" if command[0] == b"DBSIZE" else b"+OK\r\n"


def exported(path: Path, number: int) -> Path:
    path.write_bytes(b"".join(SET % b"%02d" % each for each in range(number)))
    return path


def test_the_first_error_ends_an_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SET" and len(node.commands) > 6:
            return b"-MISDIRECTED owner=b\r\n"
        return plain(command)

    with fake_node(answer) as (node, address):
        assert main(["import", str(exported(tmp_path / "file", 50)), "--at", address]) == 1
    said = capsys.readouterr().err
    failed = node.commands[6][1].decode()
    assert said == f"kevynode: SET '{failed}': MISDIRECTED owner=b (0 of 50 keys had arrived, maybe a few more)\n"


def test_a_node_that_goes_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_node(lambda command: None if command[0] == b"SET" else plain(command)) as (_, address):
        assert main(["import", str(exported(tmp_path / "file", 50)), "--at", address]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"kevynode: {address} ")
    assert said.endswith("(0 of 50 keys had arrived, maybe a few more)\n")
    assert said.count("\n") == 1


def test_what_was_removed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fake_node(lambda command: b"-OOM no\r\n" if command[0] == b"SET" else plain(command)) as (node, address):
        assert main(["import", str(exported(tmp_path / "file", 1)), "--at", address, "--replace"]) == 1
    assert [command[0] for command in node.commands] == [b"PING", b"FLUSHALL", b"SET"]
    assert capsys.readouterr().err.endswith(
        "SET '00': OOM no (0 of 1 key had arrived, maybe a few more, what was there before is gone)\n"
    )


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (1, ""),
        (2, " (what was there before may be gone, or a part of it, and nothing has taken its place)"),
    ],
)
def test_what_a_node_refuses_to_remove_is_not_told_as_gone(
    refused: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of two UNLINKs, or the second, is refused."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"SCAN":
            return b"*2\r\n$1\r\n%b\r\n*1\r\n$2\r\n00\r\n" % (b"7" if command[1] == b"0" else b"0")
        if command[0] == b"UNLINK":
            unlinks.append(command)
            return b"-MISDIRECTED writer is b\r\n" if len(unlinks) == refused else b":1\r\n"
        return plain(command)

    unlinks: list[list[bytes]] = []
    with fake_node(answer) as (_, address):
        arguments = ["import", str(exported(tmp_path / "file", 1)), "--at", address, "--scope", "0", "--replace"]
        assert main(arguments) == 1
    assert capsys.readouterr().err == f"kevynode: {address}: UNLINK: MISDIRECTED writer is b{said}\n"


def test_nothing_is_on_its_way_without_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a small window replies are read while commands are still to be sent."""
    monkeypatch.setattr(cli_import, "_WINDOW", 100)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(cli_output, "_INTERVAL", 0.0)
    file = tmp_path / "file"
    file.write_bytes(b"".join(b"*3\r\n$3\r\nSET\r\n$5\r\n%05d\r\n$50\r\n%b\r\n" % (n, b"x" * 50) for n in range(2000)))
    with fake_node(plain) as (node, address):
        assert main(["import", str(file), "--at", address]) == 0
    assert len(node.commands) == 2000 + 3
    assert capsys.readouterr().out.startswith(f"imported 2,000 keys from {file.stat().st_size:,} bytes in ")
    drawn = terminal.getvalue()
    assert "\rreading file [" in drawn
    assert "\rsending [##############################] 100% 2,000 of 2,000 keys" in drawn
    assert drawn.endswith("\r")


def test_ctrl_c_in_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pieces(*_: Any) -> Iterator[Any]:
        yield from original(*_)
        raise KeyboardInterrupt

    original = export_pieces
    monkeypatch.setattr(cli_import, "export_pieces", pieces)
    with fake_node(plain) as (_, address):
        assert main(["import", str(exported(tmp_path / "file", 3)), "--at", address]) == 130
    assert capsys.readouterr().err == "kevynode: interrupted (0 of 3 keys had arrived, maybe a few more)\n"


def test_a_file_that_is_not_there_is_told_before_the_node_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_node(lambda command: b":7\r\n" if command[0] == b"DBSIZE" else plain(command)) as (node, address):
        assert main(["import", str(tmp_path / "none"), "--at", address]) == 1
    assert capsys.readouterr().err == f"kevynode: {tmp_path / 'none'}: No such file or directory\n"
    assert node.commands == []


def test_an_address_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["import", str(tmp_path), "--at"], ["export", "--at"], ["export", "--replication"]):
        assert main([*arguments, "x"]) == 1
        assert capsys.readouterr().err == 'kevynode: x: no address (accepted: "host:port", "[ipv6]:port")\n'


def test_a_dump_beside_an_append_only_folder_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "dump.kevysnap").touch()
    assert main(["export", "--dir", str(data)]) == 0
    assert capsys.readouterr().err == f"{data}/dump.kevysnap lies beside the files that were read, and was not read\n"
    with fake_node(plain) as (_, address):
        assert main(["import", str(data), "--at", address]) == 0
    assert "lies beside" in capsys.readouterr().err


def test_a_node_that_goes_away_in_the_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDISCLI_AUTH", "secret")
    with fake_node(lambda command: None if command[0] == b"AUTH" else plain(command)) as (node, address):
        assert main(["import", str(exported(tmp_path / "file", 1)), "--at", address]) == 1
    assert node.commands == [[b"AUTH", b"secret"]]
    assert capsys.readouterr().err == f"kevynode: {address} closed the connection\n"


# -- what is printed --------------------------------------------------------------------------------------------------


def test_words_for_numbers_and_keys() -> None:
    assert [counted(number, "key") for number in (0, 1, 1234)] == ["0 keys", "1 key", "1,234 keys"]
    assert counted(2, "library", "libraries") == "2 libraries"
    assert shown(b"a\r\n\xff") == r"'a\r\n\xff'"
    assert len(shown(random.Random(1).randbytes(10_000))) < 1000


def test_a_line_without_an_end_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as progress:
        progress.told("receiving: 1K")
        # Too soon for another picture.
        progress.told("receiving: 2K")
    assert terminal.getvalue() == "\rreceiving: 1K\r" + " " * len("receiving: 1K") + "\r"


def test_nothing_is_drawn_where_nobody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress() as progress:
        progress.bytes("reading", 1, 2)
        progress.keys("sending", 1, 2)
        progress.told("more")
    assert capsys.readouterr().err == ""
