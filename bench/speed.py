"""SETs as fast as they can, with the clocks read around them."""

from bench import machine
from bench.figures import Turn
from bench.generator import Outcome, Task
from bench.measuring import GENERATOR, GENERATOR_SECONDS, Child, Meter
from bench.servers import Running
from bench.workloads import WORKLOADS


def burst(server: Running, connections: int, depth: int, requests: int) -> Outcome:
    """So many SETs as fast as they can. Raises Failed."""
    workload = WORKLOADS["SET"]
    task = Task(
        host=server.host,
        port=server.port,
        connections=connections,
        depth=depth,
        requests=requests,
        arguments=list(workload.arguments),
        line_ends=workload.line_ends,
    )
    with Child(GENERATOR, task) as generator:
        return Outcome(**generator.result(GENERATOR_SECONDS))


def turn(server: Running, connections: int, depth: int, requests: int, cores: machine.Cores) -> Turn:
    """:func:`burst` at a server that nobody helps, with the clocks read around it. Raises Failed."""
    meter = Meter(cores, [server.pid], [])
    before = machine.process_cpu(server.pid)
    outcome = burst(server, connections, depth, requests)
    return Turn(outcome.requests, outcome.elapsed, machine.process_cpu(server.pid) - before, meter.share())
