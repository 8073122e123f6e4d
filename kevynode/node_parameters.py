"""Who in a node has to know when a parameter changes. Composition only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .persist.persistence import Persistence
from .replicate.replication import Replication
from .serve.housekeeping import Housekeeper
from .serve.listener import Admission
from .serve.parameters import Parameters

__all__ = ["watch_parameters"]


def watch_parameters(
    parameters: Parameters,
    admission: Admission,
    housekeeper: Housekeeper,
    replication: Replication,
    persistence: Persistence,
    keeps_file: bool,
    is_loaded: Callable[[], bool],
) -> None:
    """Give each parameter's value to those who use it, now and whenever it changes.

    ``keeps_file`` says whether the node starts with an append-only file, which stays so until the data of the last run
    are here, as ``is_loaded`` says. Raises ValueError for a start value that somebody does not take.
    """
    parameters.watch("maxclients", partial(setattr, admission, "maxclients"))
    parameters.watch("tcp-keepalive", partial(setattr, admission, "tcp_keepalive"))
    parameters.watch("timeout", partial(setattr, housekeeper, "client_timeout"))
    parameters.watch("hz", housekeeper.set_frequency)
    parameters.watch("maxmemory", housekeeper.limit_memory)
    parameters.watch("maxmemory-policy", housekeeper.follow_policy)
    parameters.watch("repl-backlog-size", replication.set_backlog_budget)
    parameters.watch("min-replicas-to-write", lambda number: replication.require_replicas(number=number))
    parameters.watch("min-replicas-max-lag", lambda milliseconds: replication.require_replicas(max_lag_ms=milliseconds))
    settings = persistence.settings
    parameters.watch("auto-aof-rewrite-percentage", partial(setattr, settings, "rewrite_percentage"))
    parameters.watch("auto-aof-rewrite-min-size", partial(setattr, settings, "rewrite_min_size"))
    parameters.watch("appendfsync", persistence.set_policy)

    def keep_append_only_file(keep: bool) -> None:
        if not is_loaded():
            if keep == keeps_file:
                return
            raise ValueError("the data of the last run are being loaded")
        if keep == persistence.append_only().enabled:
            return
        if keep:
            persistence.switch_on()
        else:
            persistence.switch_off()

    parameters.watch("appendonly", keep_append_only_file)
