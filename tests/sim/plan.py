"""What a seed means: the nodes and what they are configured to, and what befalls them when.

A plan is drawn at once and holds nothing that depends on how the simulation goes, so a run with some of its actions
left out is the same otherwise. That is how failures are shrunk.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final, Literal

import attrs

__all__ = ["PROFILES", "Action", "Plan", "Profile", "draw_plan", "plan_from_json", "plan_to_json"]

Profile = Literal["replication", "moves", "restarts", "all"]
PROFILES: Final[tuple[Profile, ...]] = ("replication", "moves", "restarts", "all")

#: Seconds (of the simulation) after which nothing new befalls anybody.
LENGTH: Final = 30.0


@attrs.frozen
class Action:
    """One thing that happens ``at`` some second. ``seed`` decides what is left open, in this action alone."""

    number: int
    at: float
    kind: str
    nodes: tuple[str, ...]
    #: Seconds that it lasts, where it lasts.
    span: float
    seed: int

    def __str__(self) -> str:
        return f"{self.number}: at {self.at:.2f} {self.kind} {' '.join(self.nodes)} for {self.span:.2f}"


@attrs.frozen
class Plan:
    """All that a seed decides before the first node starts.

    Plans are kept as text: a field that is added has a default, so that older ones still say what they said.
    """

    seed: int
    profile: Profile
    shape: Literal["scoped", "replicated"]
    nodes: tuple[str, ...]
    #: Who follows whom, in a replicated cluster.
    upstreams: dict[str, str]
    #: Who writes which prefix, in a scoped one.
    scopes: dict[bytes, str]
    #: Which scopes each node copies.
    replicate: dict[str, Any]
    #: Sections of every node's configuration.
    sections: dict[str, dict[str, Any]]
    policy: Literal["always", "everysec", "no", "memory"]
    clients: int
    actions: tuple[Action, ...]
    #: What clients do that others do not: each of them has some of its own (:mod:`sim.habits`).
    habits: tuple[str, ...] = ()
    #: Plain replicas of nodes that write scopes: which ones they follow.
    replicas: dict[str, str] = attrs.Factory(dict)
    #: Of a plan that is kept: what it has shown.
    about: str = ""

    @property
    def everybody(self) -> tuple[str, ...]:
        """All that run, plain replicas among them."""
        return (*self.nodes, *self.replicas)

    def wants(self, name: str, prefix: bytes) -> bool:
        """Whether a node copies what is under a prefix, where another one writes it."""
        wanted = self.replicate.get(name, "all")
        return wanted == "all" or (wanted != "none" and prefix.decode() in wanted)


def plan_to_json(plan: Plan) -> str:
    """A plan as text, which means the same plan however plans are drawn by then."""
    fields = attrs.asdict(plan)
    fields["scopes"] = {prefix.decode(): writer for prefix, writer in plan.scopes.items()}
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def plan_from_json(text: str) -> Plan:
    """The plan that a text says. Raises ValueError, KeyError or TypeError if it says none."""
    fields = json.loads(text)
    fields["nodes"] = tuple(fields["nodes"])
    fields["habits"] = tuple(fields.get("habits", ()))
    fields["scopes"] = {prefix.encode(): writer for prefix, writer in fields["scopes"].items()}
    actions = fields["actions"]
    fields["actions"] = tuple(Action(**{**action, "nodes": tuple(action["nodes"])}) for action in actions)
    return Plan(**fields)


# What happens how often, by profile: weight of each kind of action.
_NETWORK: Final = {"cut": 4, "cut one way": 4, "isolate": 2, "reset": 5, "break after": 4, "slow": 3, "narrow": 3}
_ENDS: Final = {"stop": 2, "kill": 4, "power": 4, "kill in a call": 4, "power in a call": 4}
_FREEZES: Final = {"freeze": 6, "freeze and end": 5}
_FAILING: Final = {"disk full": 2, "disk error": 3, "fail and end": 2, "lost sync": 3, "slow disk": 5}
_DISK: Final = {**_FAILING, "flooded ship": 3, "rewrite": 3, "clock": 2, **_FREEZES}
_MOVES: Final = {"move": 12, "move struck": 12, "move trapped": 12, "move unrecorded": 5, "abort": 2}
_REPLICA: Final = (*_NETWORK, "kill", "power", "kill in a call", "stop", "freeze", "disk error", "slow disk", "lose")
_KINDS: Final[dict[str, dict[str, int]]] = {
    "replication": {**_NETWORK, **_ENDS, **_DISK, "promote": 6, "redirect": 4},
    "moves": {**_NETWORK, **_ENDS, **_MOVES, **_FREEZES, "rewrite": 2, "lose": 2, "disk error": 2, "slow disk": 3},
    "restarts": {**_NETWORK, **{kind: 3 * weight for kind, weight in _ENDS.items()}, **_DISK, "lose": 8},
    "all": {**_NETWORK, **_ENDS, **_DISK, **_MOVES, "lose": 2, "promote": 6, "redirect": 4},
}
_ONLY: Final = {
    "scoped": frozenset({*_MOVES, "lose"}),
    "replicated": frozenset({"promote", "redirect"}),
}


#: What is drawn of mistakes.
MISTAKES: Final = {"scoped": ("move twice",), "replicated": ("usurp", "usurp", "switch over", "switch over", "circle")}
#: What is drawn of what is done to running nodes.
MEDDLING: Final = ("pause", "cut clients", "limit memory", "change policy")
#: What is drawn of habits.
HABITS: Final = ("wait", "watch", "pipeline", "flush", "deadlines")


def draw_plan(seed: int, profile: Profile) -> Plan:
    """The plan of a seed."""
    random = Random(f"{seed} {profile} plan")
    shape: Literal["scoped", "replicated"]
    if profile == "replication":
        shape = "replicated"
    elif profile == "moves":
        shape = "scoped"
    else:
        shape = "scoped" if random.random() < 0.65 else "replicated"
    size = random.choices((3, 4, 5, 7), (70, 20, 8, 2))[0] if shape == "scoped" else random.choice((3, 3, 4))
    nodes = tuple(f"n{number}" for number in range(1, size + 1))
    policy = random.choices(("always", "everysec", "no", "memory"), (5, 4, 2, 1))[0]
    scopes: dict[bytes, str] = {}
    replicate: dict[str, Any] = {}
    upstreams: dict[str, str] = {}
    if shape == "scoped":
        prefixes = [b"a:", b"b:", b"c:"][: random.choice((1, 2, 2, 3))]
        scopes = {prefix: random.choice(nodes) for prefix in prefixes}
        kind = random.choice(("all", "all", "all", "none", "mixed"))
        for name in nodes:
            some = [prefix.decode() for prefix in prefixes if random.random() < 0.5]
            replicate[name] = some if kind == "mixed" else kind
    else:
        for place, name in enumerate(nodes[1:], 1):
            upstreams[name] = nodes[random.randrange(place)] if random.random() < 0.4 else nodes[0]
    plan = Plan(
        seed=seed,
        profile=profile,
        shape=shape,
        nodes=nodes,
        upstreams=upstreams,
        scopes=scopes,
        replicate=replicate,
        sections=_sections(random, policy),
        policy=policy,  # type: ignore[arg-type]  # one of those above
        clients=random.choice((2, 3, 4)),
        actions=_actions(random, profile, shape, nodes, policy),
    )
    if policy != "memory" and scopes:
        plan = _with_return(plan)
    return _with_relocation(_with_meddling(_with_replica(_with_habits(_with_mistakes(plan)))))


def _with_meddling(plan: Plan) -> Plan:
    """One in five plans has an operator meddle with running nodes, up to three times. Drawn apart: all else stays."""
    random = Random(f"{plan.seed} {plan.profile} meddling")
    number = len(plan.actions)
    count = random.randrange(1, 4) if random.random() < 0.2 else 0
    more = [
        Action(
            number=number + place,
            at=random.uniform(0.5, LENGTH),
            kind=random.choice(MEDDLING),
            nodes=tuple(random.sample(plan.nodes, 2)),
            span=random.choice((0.3, 1.0, 6.0)),
            seed=random.getrandbits(32),
        )
        for place in range(count)
    ]
    return attrs.evolve(plan, actions=(*plan.actions, *more))


def _with_replica(plan: Plan) -> Plan:
    """One in four clusters with scopes has a plain replica of one of its nodes, to which two things may happen."""
    random = Random(f"{plan.seed} {plan.profile} replica")
    if not plan.scopes or random.random() >= 0.25:
        return plan
    name, number = "r1", len(plan.actions)
    kinds = [kind for kind in _REPLICA if kind in _KINDS[plan.profile]]
    if plan.policy == "memory":
        kinds = [kind for kind in kinds if kind in ("kill", "freeze", *_NETWORK)]
    more = [
        Action(
            number=number + place,
            at=random.uniform(0.5, LENGTH),
            kind=random.choice(kinds),
            nodes=(name, random.choice(plan.nodes)),
            span=random.choice((0.05, 1.0, 6.0)),
            seed=random.getrandbits(32),
        )
        for place in range(random.randrange(3))
    ]
    return attrs.evolve(plan, replicas={name: random.choice(plan.nodes)}, actions=(*plan.actions, *more))


def _with_mistakes(plan: Plan) -> Plan:
    """Two in five plans have operators make one mistake, or two. Drawn apart: all else stays."""
    random = Random(f"{plan.seed} {plan.profile} mistakes")
    count = random.choices((0, 1, 2), (6, 3, 1))[0]
    kinds = MISTAKES[plan.shape]
    more = []
    for number in range(len(plan.actions), len(plan.actions) + count):
        at, nodes = random.uniform(0.5, LENGTH), tuple(random.sample(plan.nodes, 2))
        more.append(Action(number, at, random.choice(kinds), nodes, 1.0, random.getrandbits(32)))
    return attrs.evolve(plan, actions=(*plan.actions, *more))


def _with_habits(plan: Plan) -> Plan:
    """Two in five plans have clients with habits, mostly with one. Drawn apart: all else stays."""
    random = Random(f"{plan.seed} {plan.profile} habits")
    count = random.choices((0, 1, 2), (6, 3, 1))[0]
    habits = random.sample(HABITS, count)
    if "flush" in habits:
        # What was emptied and what was lost look alike in a list.
        habits = [habit for habit in habits if habit != "wait"]
    return attrs.evolve(plan, habits=tuple(sorted(habits)))


def _with_return(plan: Plan) -> Plan:
    """One in ten plans with moves has a scope go and come back, behind a node's back. Drawn apart: all else stays."""
    random = Random(f"{plan.seed} {plan.profile} return")
    if "move" not in _KINDS[plan.profile] or random.random() >= 0.1:
        return plan
    number, at = len(plan.actions), random.uniform(0.5, LENGTH)
    nodes, span = tuple(random.sample(plan.nodes, 2)), 1.0
    action = Action(number, at, "move and return", nodes, span, random.getrandbits(32))
    return attrs.evolve(plan, actions=(*plan.actions, action))


def _with_relocation(plan: Plan) -> Plan:
    """One in ten clusters with scopes has a node go to another machine. Drawn apart: all else stays."""
    random = Random(f"{plan.seed} {plan.profile} relocation")
    if not plan.scopes or plan.policy == "memory" or random.random() >= 0.1:
        return plan
    number, at = len(plan.actions), random.uniform(0.5, LENGTH)
    action = Action(number, at, "relocate", tuple(random.sample(plan.nodes, 2)), 1.0, random.getrandbits(32))
    return attrs.evolve(plan, actions=(*plan.actions, action))


def _sections(random: Random, policy: str) -> dict[str, dict[str, Any]]:
    persistence: dict[str, Any] = {"aof": policy != "memory"}
    if policy != "memory":
        persistence["appendfsync"] = policy
        persistence["auto_aof_rewrite_min_size"] = random.choice(("4kb", "16kb", "64mb"))
    return {
        "persistence": persistence,
        "expiry": {"hz": random.choice((2, 5, 10))},
        "replication": {
            "replication_buffer_size": random.choice(("4kb", "64kb", "1mb", "64mb")),
            "reconnect_window_ms": random.choice((1000, 5000, 60000)),
        },
    }


def _actions(random: Random, profile: Profile, shape: str, nodes: tuple[str, ...], policy: str) -> tuple[Action, ...]:
    kinds = dict(_KINDS[profile])
    for other, only in _ONLY.items():
        if other != shape:
            kinds = {kind: weight for kind, weight in kinds.items() if kind not in only}
    if policy == "memory":
        kinds = {
            kind: weight
            for kind, weight in kinds.items()
            if kind not in (*_DISK, *_ENDS, "lose") or kind in ("clock", "freeze")
        }
        kinds["kill"] = 4
    count = random.randrange(3, 14)
    # Some seeds are about little that goes wrong at a time, others about much of few kinds.
    if random.random() < 0.3:
        chosen = random.sample(sorted(kinds), min(len(kinds), 4))
        kinds = {kind: weight for kind, weight in kinds.items() if kind in chosen or kind.startswith("move")}
    times = sorted(random.uniform(0.5, LENGTH) for _ in range(count))
    return tuple(
        Action(
            number=number,
            at=at,
            kind=random.choices(list(kinds), list(kinds.values()))[0],
            nodes=tuple(random.sample(nodes, 2)),
            span=random.choice((0.05, 0.3, 1.0, 3.0, 6.0)) * random.uniform(0.5, 1.5),
            seed=random.getrandbits(32),
        )
        for number, at in enumerate(times)
    )
