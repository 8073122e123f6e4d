"""The tasks of a node at rest: one of each kind that is always there, one for each link, and no other."""

from __future__ import annotations

from collections import Counter
from typing import Final

from sim.habits import HABITS
from sim.plan import Plan
from sim.world import Life, World

__all__ = ["Tasks"]

#: What runs once in a node, if it runs at all.
_ONCE: Final = (
    "accept.accept_connections",
    "member.Member.run",
    "node.Node.run",
    "node_work.NodeWork.keep_house",
    "node_work.NodeWork.run_timers",
    "persist.service.PersistenceService._sync",
    "persist.service.PersistenceService._work",
    "persist.service.PersistenceService.run",
    "replicate.follower.Follower.run",
    "replicate.mesh_service.MeshService.run",
    "replicate.service.ReplicationService.beat",
    "replicate.service.ReplicationService.follow",
    "replicate.upstream.Upstream.run",
    "scope.coordinator.Coordinator.run",
    "scope.keeper.ScopeKeeper.run",
    "scope.peers.PeerLinks.run",
    "serve.hub.Hub.run",
    "serve.listener.ClientEntrance.listen",
)
#: What runs for each other node that copies something, or is copied, or is told of scopes.
_FOR_EACH_NODE: Final = (
    "replicate.mesh_service.MeshService._follow",
    "replicate.sender.ReplicaEntrance._run",
    "replicate.sender.Sender._read",
    "scope.peers.PeerLinks._keep",
    "scope.peers.PeerLinks._receive",
)
#: What runs for each link to another node: those that it has dialled, and those that the other one has.
_FOR_EACH_LINK: Final = ("scope.peer_link.Link._answer", "scope.peer_link.Link._write")
#: What runs for each client's connection: one task that serves it, and those that read, send and run commands.
_SERVES: Final = "serve.listener.ClientEntrance._serve"
_WORKS: Final = "serve.stream_driver._StreamConnection._guard"


class Tasks:
    """Looks at the tasks of nodes."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        others = len(plan.everybody) - 1
        clients = plan.clients + sum(count for _, count in (HABITS[habit] for habit in plan.habits))
        #: How many there may be of each kind; the operator is a client, too.
        self._most = {
            **dict.fromkeys(_ONCE, 1),
            **dict.fromkeys(_FOR_EACH_NODE, others),
            **dict.fromkeys(_FOR_EACH_LINK, 2 * others),
            _SERVES: clients + 1,
            _WORKS: 3 * (clients + 1),
        }

    def left_over(self) -> str:
        """Which tasks a node has that it should not have; empty if there are none."""
        for name in self._world.living():
            for kind, count in sorted(self._running(self._world.lives[name]).items()):
                most = self._most.get(kind, 0)
                if count > most:
                    return f"{name} has {count} tasks {kind}, and may have {most}"
        return ""

    def _running(self, life: Life) -> Counter[str]:
        """The tasks of a life by kind."""
        found: Counter[str] = Counter()
        tasks = [] if life.task is None else [life.task]
        while tasks:
            for nursery in tasks.pop().child_nurseries:
                for task in nursery.child_tasks:
                    found[task.name.removeprefix("kevynode.")] += 1
                    tasks.append(task)
        return found
