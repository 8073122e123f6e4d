"""The machine under the comparison: which cores to use, CPU time of a process, load that is not ours. Linux only."""

import os
import platform
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import attrs

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Cores:
    """The core the servers run on and the core the load generator runs on."""

    server: int
    generator: int

    @property
    def shared(self) -> bool:
        """Whether both have to share one core: throughput then says little, CPU per command still counts."""
        return self.server == self.generator


def choose_cores(allowed: Collection[int]) -> Cores:
    """The highest allowed core for the servers (the lowest often serves interrupts), the lowest for the load."""
    return Cores(server=max(allowed), generator=min(allowed))


def process_cpu(pid: int) -> float:
    """CPU seconds, user and system, of all threads of process ``pid``, ended ones included.

    Reads the process' own CPU clock (nanoseconds); raises OSError when the process is gone. Linux encodes that
    clock's id as the complement of the pid and the number of the scheduler clock.
    """
    return time.clock_gettime((~pid << 3) | 2)


def parse_core_times(text: str) -> dict[int, int]:
    """Busy ticks of every core since boot, from the text of ``/proc/stat``.

    Busy is all but idle and waiting for a disk: user (guests are part of it), nice, system, hard and soft
    interrupts, stolen. Soft interrupts deliver the packets of a loopback connection, and the kernel charges them
    to the process they interrupt, so they are in the processes' CPU clocks too.
    """
    busy = {}
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0].startswith("cpu") and fields[0][3:].isdigit():
            user, nice, system, _idle, _disk, *rest = (int(field) for field in fields[1:9])
            busy[int(fields[0][3:])] = user + nice + system + sum(rest)
    return busy


def read_core_times() -> dict[int, int]:
    """:func:`parse_core_times` of this machine, now."""
    return parse_core_times(Path("/proc/stat").read_text())


def foreign_share(before: Mapping[int, int], after: Mapping[int, int], wall: float, ours: Mapping[int, float]) -> float:
    """The share of the busiest of our cores that processes other than ours used between two readings.

    ``before`` and ``after`` are busy ticks by core, ``wall`` the seconds between them, ``ours`` the CPU seconds
    that our own processes used by core. Zero when the clocks' coarseness would make it negative.
    """
    shares = [
        ((after[core] - before[core]) / TICKS_PER_SECOND - used) / wall for core, used in ours.items() if wall > 0
    ]
    return max([0.0, *shares])


def load_now(cores: Cores, seconds: float) -> float:
    """The share of the busier of our cores that others use now; sleeps for ``seconds`` to see it."""
    before, began, own = read_core_times(), time.perf_counter(), time.process_time()
    time.sleep(seconds)
    after, wall = read_core_times(), time.perf_counter() - began
    ours = {cores.server: 0.0, cores.generator: time.process_time() - own}
    return foreign_share(before, after, wall, ours)


def listening_pid(port: int) -> int | None:
    """The process that listens on TCP ``port`` of this machine, or None when that cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and inodes & _open_files(process):
            return int(process.name)
    return None


def _open_files(process: Path) -> set[str]:
    files = set()
    try:
        for entry in (process / "fd").iterdir():
            try:
                files.add(os.readlink(entry))
            except FileNotFoundError:  # closed since it was listed
                continue
    except OSError:  # the process is gone or another user's
        pass
    return files


def thread_affinities(pid: int) -> dict[int, set[int]]:
    """The cores each thread of ``pid`` may run on, by thread id."""
    threads = [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    return {thread: os.sched_getaffinity(thread) for thread in threads}


def pin_threads(affinities: Mapping[int, Collection[int]]) -> None:
    """Give each thread the cores named for it; a thread that has ended is passed over."""
    for thread, cores in affinities.items():
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue


def describe() -> dict[str, str | int]:
    """What the report says about this machine: processor, cores allowed to us, kernel and Python."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
