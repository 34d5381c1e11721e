"""What each kind of node means: how its outcome follows from the outcomes of its kids.

Outcomes are texts: "ok VALUE", "Broken(STEP)", "[ERROR ERROR]" for a group, "TimeoutError", "CancelledError". Where a
program has no race, the rules leave exactly one outcome for each node. Where it has a race, the rules take the side
that the log says has won, and require all that follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.torture.programs import LAST, MESSAGES, Line, Node, jobs

CANCELLED = "CancelledError"
CANCELS = ("group", "gather", "timeout", "wait_for", "dtimeout", "cancel", "first", "wait", "winner", "queue", "snipe")
"""Kinds that may cancel what is below them, and `snipe`, which may cancel all."""


class Facts:
    """What one life says about each node."""

    def __init__(self, program: Node, lines: list[Line], *, cancelled: bool = False) -> None:
        """`cancelled`: the run was asked to cancel, so anything may be cancelled."""
        self.nodes: dict[str, Node] = {}
        self._steps = {LAST}
        self._cancellable: set[str] = set()
        self.readings: dict[str, str] = {}
        """The readings of the time, each with the line of control in which time must not go back."""
        self.effects: set[str] = set()
        """The steps that write to the user's database."""
        self._map("0", program, cancelled or any(node.kind == "snipe" for node in program.walk()))
        self.lines = lines
        self.outcomes: dict[str, str] = {}
        self.entered: dict[str, int] = {}
        self.left: dict[str, int] = {}
        self.sees: dict[str, list[tuple[int, str]]] = {}
        self.is_sniped = any(line.kind == "see" and line.what.startswith("snipes ") for line in lines)
        for place, line in enumerate(lines):
            if line.kind == "enter":
                self.entered[line.name] = place
            elif line.kind == "leave":
                self.outcomes[line.name] = line.what
                self.left[line.name] = place
            elif line.kind == "see":
                self.sees.setdefault(line.name, []).append((place, line.what))

    def _map(self, path: str, node: Node, cancellable: bool) -> None:
        self.nodes[path] = node
        if cancellable:
            self._cancellable.add(path)
        self._steps.update(steps(path, node))
        if node.kind == "effect":
            self.effects.add(path)
        if node.kind == "thread":
            self.readings.update({job.name: path for job in jobs(path, node) if job.what == "time"})
        if node.kind == "seq":
            self.readings.update({f"{path}.{n}": path for n, kid in enumerate(node.kids) if kid.kind == "time"})
        below = cancellable or node.kind in CANCELS
        for place, kid in enumerate(node.kids):
            for each in kid_paths(path, node, place):
                self._map(each, kid, below)

    def is_step(self, name: str) -> bool:
        """Whether the program has a step of that name."""
        return name in self._steps

    def may_be_cancelled(self, path: str) -> bool:
        """Whether anything in the program may cancel that node."""
        return path in self._cancellable

    def kids(self, path: str) -> list[str | None]:
        """The outcomes of the kids, `None` where a kid has not ended in this life."""
        node = self.nodes[path]
        return [self.outcomes.get(kid_paths(path, node, place)[0]) for place in range(len(node.kids))]

    def seen(self, path: str, prefix: str) -> str | None:
        """The last observation of that node that begins so."""
        found = [what for _, what in self.sees.get(path, []) if what.startswith(prefix)]
        return found[-1] if found else None

    def left_behind(self) -> set[str]:
        """The steps below nodes that had not ended when the body did: their outcome may never be told."""
        open_nodes = [path for path in self.nodes if path in self.entered and path not in self.left]
        open_nodes += [path for path, what in self.outcomes.items() if what == CANCELLED]
        return {name for path in open_nodes for name in steps(path, self.nodes[path])}


def kid_paths(path: str, node: Node, place: int) -> list[str]:
    """The paths under which a kid is executed."""
    if node.kind == "retry":
        return [f"{path}r{turn}" for turn in range(3)]
    return [f"{path}.c"] if node.kind in ("child", "process") else [f"{path}.{place}"]


def steps(path: str, node: Node) -> list[str]:
    """The names of the steps that a node executes by itself."""
    below = f"{path}.c"
    if node.kind in (
        "step",
        "fail",
        "cleanup",
        "sync",
        "snipe",
        "stream_step",
        "limited",
        "holding",
        "effect",
        "stray",
    ):
        return [path]
    if node.kind == "thread":
        own = [job.name for job in jobs(path, node) if job.what in ("step", "fail")]
        return own + [f"{job.name}.c{part}" for job in jobs(path, node) if job.what == "child" for part in "ab"]
    if node.kind == "leave":
        return [f"{path}.{tail}" for tail in ("0", "x")]
    if node.kind == "map":
        return [f"{below}{place}a" for place in range(node.choice % 4)]
    if node.kind == "cached":
        return [f"cached{node.choice % 3}"]
    tails = {"sync_child": "ab", "limited_child": "ab", "flaky": "af", "sync_flaky": "af", "exhausted": "f"}
    return [below + tail for tail in tails.get(node.kind, "")]


def is_caught(outcome: str) -> bool:
    """Whether nodes that go on after failures go on after this one."""
    return outcome.startswith(("Broken(", "TimeoutError", "["))


def broken_rules(facts: Facts) -> Iterator[str]:
    """Each node whose outcome does not follow from what happened below it."""
    for path, outcome in facts.outcomes.items():
        node = facts.nodes.get(path)
        if node is None:
            yield f"{path} is no node of the program"
            continue
        kids = facts.kids(path)
        if outcome == CANCELLED:
            if not facts.may_be_cancelled(path) and CANCELLED not in kids:
                yield f"{node.kind} {path} was cancelled, and nothing in the program cancels it"
            continue
        wrong = RULES[node.kind](facts, path, node, outcome)
        if wrong:
            yield f"{node.kind} {path} ended with {outcome!r} where its kids ended with {kids}: {wrong}"
    yield from _times(facts)


def _times(facts: Facts) -> Iterator[str]:
    """P8 in the threads of the program, and in the sequences of it."""
    values: dict[str, list[float]] = {}
    for line in facts.lines:
        where = facts.readings.get(line.name)
        if line.kind == "told" and where is not None and line.what.startswith("ok "):
            values.setdefault(line.body + where, []).append(float(line.what[3:]))
    for where, found in values.items():
        if any(after < before for before, after in pairwise(found)):
            yield f"P8: time goes back in {where}: {found}"


# -- rules: `None`, or what is wrong -------------------------------------------------------------------------------

Rule = Callable[[Facts, str, Node, str], str | None]


def _exactly(expected: Callable[[str, Node], str]) -> Rule:
    def rule(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
        wanted = expected(path, node)
        return None if outcome == wanted else f"expected {wanted!r}"

    return rule


def _thread(path: str, node: Node) -> str:
    failing = [job.name for job in jobs(path, node) if job.fail]
    return f"Broken({failing[0]})" if failing else f"ok {path}"


def _in_turn(facts: Facts, paths: list[str]) -> tuple[list[str], str | None]:
    """The outcomes of what is executed one after the other, up to the first that nothing catches; what is wrong."""
    found: list[str] = []
    before = -1
    for path in paths:
        if path not in facts.entered:
            break
        if facts.entered[path] < before:
            return found, f"{path} began before the one in front of it had ended"
        if path not in facts.left:
            return found, f"{path} has not ended"
        before = facts.left[path]
        found.append(facts.outcomes[path])
    return found, None


def _seq(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    found, wrong = _in_turn(facts, [f"{path}.{place}" for place in range(len(node.kids))])
    if wrong:
        return wrong
    for place, each in enumerate(found):
        if not each.startswith("ok") and not is_caught(each):
            return None if each == outcome and place == len(found) - 1 else f"expected {each!r}"
    if len(found) < len(node.kids):
        return "not all kids were executed"
    return None if outcome == f"ok {path}" else "expected ok"


def _retry(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    found, wrong = _in_turn(facts, [f"{path}r{turn}" for turn in range(3)])
    if wrong:
        return wrong
    if not found:
        return "no turn was executed"
    if any(not is_caught(each) for each in found[:-1]):
        return "a turn follows a turn that did not fail"
    if not is_caught(found[-1]):
        return None if outcome == found[-1] else f"expected {found[-1]!r}"
    return None if len(found) == 3 and outcome == f"ok {path}" else "expected three turns and ok"


def _settled(facts: Facts, path: str) -> str | None:
    """Whether the text that `settle` has seen fits the outcomes of the kids."""
    text = facts.seen(path, "all ")
    if text is None:
        return "no kids were awaited"
    for kid in facts.kids(path):
        wanted = CANCELLED if kid is None else "ok" if kid.startswith("ok") else kid
        head = "all " if text.startswith("all ") else " "
        if facts.is_sniped and text.startswith(head + CANCELLED):
            wanted = CANCELLED  # a task that cancels itself in its last step
        if not text.startswith(head + wanted):
            return f"the kids were awaited with {facts.seen(path, 'all ')!r}"
        text = text[len(head + wanted) :]
    return None


def _awaited(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    wrong = _settled(facts, path)
    text = (facts.seen(path, "all ") or "")[4:]
    return wrong or (None if outcome == f"ok {text}" else f"expected 'ok {text}'")


def _gather(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    if node.choice % 2:
        return _awaited(facts, path, node, outcome)
    kids = facts.kids(path)
    if outcome.startswith("ok"):
        return None if all(kid is not None and kid.startswith("ok") for kid in kids) else "expected a failure"
    failed = [
        (facts.left[f"{path}.{n}"], kid) for n, kid in enumerate(kids) if kid is not None and not kid.startswith("ok")
    ]
    return None if failed and min(failed)[1] == outcome else "expected the failure that came first"


def _group(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    seen = facts.seen(path, "group ")
    errors = sorted(kid for kid in facts.kids(path) if kid is not None and is_caught(kid))
    if seen is None:
        fine = not errors and outcome == f"ok {path}"
        return None if fine else f"expected a group of {errors}"
    inside = seen[len("group ") :]
    if not errors or len(" ".join(errors)) + 2 != len(inside) or any(each not in inside for each in errors):
        return f"expected a group of {errors}, not {inside}"
    wanted = inside if node.choice % 2 else f"ok {path}"
    return None if outcome == wanted else f"expected {wanted!r}"


def _waited(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    marks = [(place, what) for place, what in facts.sees.get(path, []) if set(what) <= {"x", "."}]
    if marks:
        place, text = marks[-1]
        for number, mark in enumerate(text):
            left = facts.left.get(f"{path}.{number}")
            if mark == "x" and left is not None and left > place:
                return f"kid {number} was done before it had ended"
        if node.kind == "first" and "x" not in text:
            return "no kid was done"
    return _settled(facts, path) or (None if outcome == f"ok {path}" else "expected ok")


def _winner(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    seen = facts.seen(path, "won by ")
    if seen is None:
        return "no kid has won"
    won = int(seen[-1])
    third = facts.outcomes.get(f"{path}.2")
    if (f"{path}.2" in facts.entered) != (won == node.choice % 2):
        return "the third kid is executed exactly if the right one has won"
    if third is not None and not third.startswith("ok"):
        return None if outcome == third else f"expected {third!r}"
    return None if outcome == f"ok {won}" else f"expected 'ok {won}'"


def _timed(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    if outcome == "ok in time":
        return None if kid is not None and kid.startswith("ok") else "expected that the kid ended well"
    if outcome == "ok late":
        return None if kid is None or kid == CANCELLED else "expected that the kid was cancelled"
    return None if kid == outcome else "expected the outcome of the kid"


def _cancel(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    if facts.seen(path, "cancels ") is None:
        return "nothing was cancelled"
    text = (facts.seen(path, "all ") or "")[4:]
    kid = facts.kids(path)[0]
    wanted = CANCELLED if kid is None else "ok" if kid.startswith("ok") else kid
    wanted = CANCELLED if facts.is_sniped and text == CANCELLED else wanted
    return None if text == wanted and outcome == f"ok {text}" else f"expected 'ok {wanted}'"


def _same(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    return None if kid == outcome else "expected the outcome of the kid"


def _swallow(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    wanted = f"ok {path}" if kid == CANCELLED else kid
    return None if outcome == wanted else f"expected {wanted!r}"


def _finally(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    first, second = facts.kids(path)
    if second is None:
        return "the second kid was not executed"
    wanted = first if second.startswith("ok") else second
    return None if outcome == wanted else f"expected {wanted!r}"


def _chain(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    wanted = f"Broken({path}) from {kid}" if kid is not None and is_caught(kid) else kid
    return None if outcome == wanted else f"expected {wanted!r}"


def _attempt(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    wanted = f"ok {path}" if kid is not None and is_caught(kid) else kid
    return None if outcome == wanted else f"expected {wanted!r}"


def _event(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    begun = [facts.entered[f"{path}.{n}"] for n in range(1, len(node.kids)) if f"{path}.{n}" in facts.entered]
    if begun and min(begun) < facts.left.get(f"{path}.0", len(facts.lines)):
        return "a kid began before the event"
    return _awaited(facts, path, node, outcome)


def _lock(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    paths = [each for n in range(len(node.kids)) if (each := f"{path}.{n}") in facts.left]
    spans = sorted((facts.entered[each], facts.left[each]) for each in paths)
    if any(after[0] < before[1] for before, after in pairwise(spans)):
        return "two kids held the lock at once"
    return _awaited(facts, path, node, outcome)


def _child(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    [kid] = facts.kids(path)
    # The body of a child whose outcome is recorded is not executed.
    return None if kid is None or kid == outcome else f"expected {kid!r}"


def _fine(facts: Facts, path: str, node: Node, outcome: str) -> str | None:
    return None if outcome.startswith("ok ") else "expected ok"


_OWN = _exactly(lambda path, node: f"ok {path}")
RULES: dict[str, Rule] = {
    **dict.fromkeys(("step", "cleanup", "sync", "nap", "spin", "later", "dsleep", "time", "random", "snipe"), _OWN),
    **dict.fromkeys(("items", "sync_items", "map", "cached", "queue", "spawn"), _OWN),
    **dict.fromkeys(MESSAGES, _OWN),
    "fail": _exactly(lambda path, node: f"Broken({path})"),
    "thread": _exactly(_thread),
    **dict.fromkeys(("limited", "holding", "effect", "leave", "stray"), _OWN),
    **dict.fromkeys(("sync_child", "limited_child"), _exactly(lambda path, node: f"ok {path}.c")),
    **dict.fromkeys(("flaky", "sync_flaky"), _exactly(lambda path, node: f"ok {path}.cf")),
    "exhausted": _exactly(lambda path, node: f"Broken({path}.cf)"),
    "join": _fine,
    "seq": _seq,
    "retry": _retry,
    "gather": _gather,
    "group": _group,
    **dict.fromkeys(("first", "wait"), _waited),
    "completed": _awaited,
    "winner": _winner,
    **dict.fromkeys(("timeout", "wait_for", "dtimeout"), _timed),
    "cancel": _cancel,
    "swallow": _swallow,
    "finally": _finally,
    "shield": _same,
    "chain": _chain,
    "attempt": _attempt,
    "event": _event,
    "lock": _lock,
    **dict.fromkeys(("child", "process"), _child),
}
