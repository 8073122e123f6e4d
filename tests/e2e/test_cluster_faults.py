"""Nodes as processes, under the workload and checks of the simulated clusters: killed, stopped for a while, cut off.

Each cluster has a seed of its own, which its name tells, and some rounds; a dozen rounds are run. For hundreds, and
for others::

    KEVYNODE_CRASH_ROUNDS=100 KEVYNODE_CRASH_SEED=1000 python -m pytest tests/e2e/test_cluster_faults.py

runs clusters from seed 1000 to 1099. What befalls them is the same each time, the instruction that it hits is not: the
data directories and logs that a failure leaves behind say more.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from e2e.crashing import seeds, told
from e2e.faulty_cluster import NAMES, FaultyCluster, Round, draw_rounds
from e2e.hosts import CLIENTS, Hosts, LoopbackHosts, NamespaceHosts, why_no_namespaces

#: Rounds of each cluster.
ROUNDS = 6
CLIENT_COUNT = 8

pytestmark = pytest.mark.slow

needs_namespaces = pytest.mark.skipif(bool(why_no_namespaces()), reason=f"no network namespaces: {why_no_namespaces()}")


async def live(cluster: FaultyCluster, fillers: int, rounds: list[Round]) -> None:
    """A cluster's life, with all checks at its end."""
    await cluster.start(*NAMES)
    await cluster.rest()
    await cluster.fill(fillers)
    cluster.make_clients(CLIENT_COUNT)
    async with trio.open_nursery() as nursery:
        for client in cluster.clients:
            nursery.start_soon(client.run)
        await cluster.wait_for_replies(1)
        for number, round_ in enumerate(rounds):
            with told(f"in round {number}"):
                await cluster.carry_out(round_)
                await cluster.wait_for_replies(2)
        for client in cluster.clients:
            client.stopped = True
    await cluster.check()


def run(seed: int, folder: Path, hosts: Hosts, draw: random.Random, rounds: list[Round]) -> None:
    for name in NAMES:
        (folder / name).mkdir()
    story = [f"\n  {one}" for one in rounds]
    with FaultyCluster(draw, folder, hosts) as cluster, told(f"seed {seed}:", *story, folder):
        try:
            trio.run(live, cluster, draw.choice((0, 2000)), rounds)
            cluster.stop()
            cluster.check_logs()
        except BaseException:
            cluster.keep_logs()
            raise


@pytest.mark.parametrize("seed", seeds(1))
def test_killed_and_stopped_nodes_keep_every_promise(seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"processes {seed}")
    with LoopbackHosts(NAMES) as hosts:
        run(seed, tmp_path, hosts, draw, draw_rounds(draw, ROUNDS, network=False))


@needs_namespaces
@pytest.mark.parametrize("seed", seeds(1))
def test_nodes_on_a_bad_network_keep_every_promise(seed: int, tmp_path: Path) -> None:
    draw = random.Random(f"networks {seed}")
    with NamespaceHosts(NAMES, seed) as hosts:
        run(seed, tmp_path, hosts, draw, draw_rounds(draw, ROUNDS, network=True))


# -- the harness itself -----------------------------------------------------------------------------------------------


ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as listener:
    print(flush=True)
    connection = listener.accept()[0]
    while data := connection.recv(1000):
        connection.sendall(data)
"""


@needs_namespaces
def test_what_is_cut_off_arrives_later() -> None:
    async def main(hosts: NamespaceHosts) -> None:
        address = hosts.addresses["bert"]
        async with await hosts.connect(address, 7000) as stream:
            for ways in (hosts.ways("bert"), [(CLIENTS, "bert")], [("bert", CLIENTS)]):
                hosts.set_weather(ways, cut=True)
                await stream.send_all(b"hello")
                with trio.move_on_after(0.3) as patience:
                    await stream.receive_some()
                assert patience.cancelled_caught
                hosts.set_weather(ways, loss=0.1, latency=0.01, jitter=0.01)
                received = b""
                while len(received) < 5:
                    received += await stream.receive_some()
                assert received == b"hello"
                hosts.calm()
        with pytest.raises(OSError):
            await hosts.connect(hosts.addresses["anna"], 7000)

    with NamespaceHosts(NAMES) as hosts:
        command = [*hosts.inside("bert"), sys.executable, "-c", ECHO, hosts.addresses["bert"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            trio.run(main, hosts)


def test_what_is_lost_is_found_out(tmp_path: Path) -> None:
    draw = random.Random(1)

    async def main(cluster: FaultyCluster) -> None:
        await cluster.start(*NAMES)
        await cluster.rest()
        cluster.make_clients(1)
        (client,) = cluster.clients
        client.go_to(b"a:", "anna")
        for token in (b"1;", b"2;"):
            assert await client.operate(b"a:", b"a:log", "append", token, 10.0) is not None
        # As if the second write had never been.
        assert await cluster.ask("anna", "SET", "a:log", "1;") == "OK"
        await client.close()
        await cluster.check()

    with LoopbackHosts(NAMES) as hosts, FaultyCluster(draw, tmp_path, hosts) as cluster:
        for name in NAMES:
            (tmp_path / name).mkdir()
        with pytest.raises(AssertionError, match="no order explains b'a:log'"):
            trio.run(main, cluster)
