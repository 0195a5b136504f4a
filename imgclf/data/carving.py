"""Carve training, validation and test splits from units of images: the shares first, stability second."""

import hashlib
import itertools
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from imgclf.data import grouping
from imgclf.data.dataset import SPLITS, TEST, TRAIN, VALIDATION, Sample

G = TypeVar("G", bound=Hashable)

TOLERANCE = 0.1
"""How far a class's validation and test counts may be from their share, as a fraction of it; at least one image."""


def carve(
    samples: Sequence[Sample],
    strata: Sequence[Sequence[str]],
    units: Sequence[int],
    kept: Mapping[int, str],
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
) -> dict[int, str]:
    """Give every unit a split, by the rules of `splitting.split`; units in `kept` have theirs.

    Args:
        strata: the classes of each sample, or what stands for them.
    """
    place_of = places(samples, units, seed)
    torn = _torn(samples, units) - kept.keys()
    weights = _weights(samples, strata, units, torn)
    plan = _Plan(weights, place_of, kept, {TEST: test_fraction, VALIDATION: validation_fraction})
    if any(len(own) > 1 for own in strata):
        counted = {TRAIN: 1 - test_fraction - validation_fraction, TEST: test_fraction, VALIDATION: validation_fraction}
        for unit, goal in stratify(weights, counted, place_of, kept).items():
            plan.put(unit, goal)
        plan.fill_minima()
        return plan.split_of | dict.fromkeys(torn, TRAIN)
    large = sorted((u for u in weights if plan.is_large(u)), key=lambda u: (-weights[u].total(), place_of[u]))
    for unit in large:
        plan.put(unit, plan.neediest(unit))
    for unit in weights.keys() - kept.keys() - set(large):
        limits = (test_fraction, test_fraction + validation_fraction)
        plan.put(unit, TEST if place_of[unit] < limits[0] else VALIDATION if place_of[unit] < limits[1] else TRAIN)
    plan.balance(set(large))
    plan.fill_minima()
    return plan.split_of | dict.fromkeys(torn, TRAIN)


def stratify(
    weights: Mapping[int, Counter[str]],
    shares: Mapping[G, float],
    places: Mapping[int, float],
    kept: Mapping[int, G] | None = None,
) -> dict[int, G]:
    """Deal out units of images that have several classes, so that every part gets its share of every class.

    The rarest class that is left is dealt out first, each unit to the part that lacks most of it; of equals, to the
    part that lacks most labels. `places`, hashes in [0, 1), decide the order of units.

    Args:
        weights: the images of each class in each unit.
        shares: of each part; they sum to 1.
        kept: units whose part is given; only those in `weights` count.

    Returns:
        The part of each unit that is not in `kept`.

    Source: iterative stratification, Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10.
    """
    kept = {unit: goal for unit, goal in (kept or {}).items() if unit in weights}
    sizes: Counter[str] = Counter()
    for own in weights.values():
        sizes.update(own)
    total = sizes.total()
    lacking = {(goal, name): share * n for goal, share in shares.items() for name, n in sizes.items()}
    lacking_all = {goal: share * total for goal, share in shares.items()}
    found: dict[int, G] = {}

    def put(unit: int, goal: G) -> None:
        for name, n in weights[unit].items():
            lacking[goal, name] -= n
            lacking_all[goal] -= n

    for unit, goal in kept.items():
        put(unit, goal)
    left = {unit for unit in weights if unit not in kept}
    while left:
        counts: Counter[str] = Counter()
        for unit in left:
            counts.update(weights[unit].keys())
        rarest = min(counts, key=lambda name: (counts[name], name))
        for unit in sorted((u for u in left if weights[u][rarest]), key=places.__getitem__):
            order = list(shares)
            goal = max(order, key=lambda g: (lacking[g, rarest], lacking_all[g], -order.index(g)))
            found[unit] = goal
            put(unit, goal)
            left.remove(unit)
    return found


def wanted(share: float, count: int) -> tuple[int, int]:
    """Return the fewest and the most images of a split that meet its share of `count` images."""
    target = share * count
    slack = max(1.0, TOLERANCE * target) + 1e-9
    return max(0, math.ceil(target - slack)), math.floor(target + slack)


_ROUTES: tuple[tuple[str, str, Callable[[bool, bool], bool]], ...] = (
    (TEST, VALIDATION, operator.and_),  # one move instead of two
    (VALIDATION, TEST, operator.and_),
    (TEST, TRAIN, operator.or_),
    (TRAIN, TEST, operator.or_),
    (VALIDATION, TRAIN, operator.or_),
    (TRAIN, VALIDATION, operator.or_),
    (TEST, VALIDATION, lambda over, under: under),  # where training has none to spare
    (VALIDATION, TEST, lambda over, under: under),
)
"""From where to where units are moved, in this order, and if what: the first has too many, the second too few."""


class _Plan:
    """Which split each unit has, and how many images of each class that gives.

    `weights` counts a unit's images by class. `places` are hashes in [0, 1), which stand in for chance.
    """

    def __init__(
        self,
        weights: Mapping[int, Counter[str]],
        places: Mapping[int, float],
        kept: Mapping[int, str],
        shares: Mapping[str, float],
    ) -> None:
        self._weights, self._places, self._kept = weights, places, kept
        self._shares = {TRAIN: 1 - sum(shares.values()), **shares}
        self._members: defaultdict[str, list[int]] = defaultdict(list)
        for unit in sorted(weights, key=places.__getitem__):
            for name in weights[unit]:
                self._members[name].append(unit)
        self._sizes = {name: sum(weights[u][name] for u in own) for name, own in self._members.items()}
        self._least = {name: self._minima(len(own)) for name, own in self._members.items()}
        self._bands = {(name, goal): self._band(name, goal) for name in self._members for goal in SPLITS}
        self._counts: Counter[tuple[str, str]] = Counter()
        self.split_of: dict[int, str] = {}
        for unit in weights.keys() & kept.keys():
            self.put(unit, kept[unit])

    def put(self, unit: int, goal: str) -> None:
        old = self.split_of.get(unit)
        for name, n in self._weights[unit].items():
            if old:
                self._counts[name, old] -= n
            self._counts[name, goal] += n
        self.split_of[unit] = goal

    def is_large(self, unit: int) -> bool:
        """Whether the unit alone could take a split of a class out of its band."""
        least = min((share for goal, share in self._shares.items() if share > 0 and goal != TRAIN), default=1.0)
        sizes = self._sizes
        return unit not in self._kept and any(
            n > max(1.0, TOLERANCE * least * sizes[name]) for name, n in self._weights[unit].items()
        )

    def neediest(self, unit: int) -> str:
        """Training for the first unit of a class, else the split that is furthest below its share of the classes."""
        weights, counts, sizes = self._weights[unit], self._counts, self._sizes
        if any(counts[name, TRAIN] == 0 for name in weights):
            return TRAIN

        def gap(goal: str) -> float:
            share = self._shares[goal]
            gaps = (n / sizes[name] * (share - counts[name, goal] / sizes[name]) for name, n in sorted(weights.items()))
            return round(sum(gaps), 9)

        return max((goal for goal in (TRAIN, TEST, VALIDATION) if self._shares[goal] > 0), key=gap)

    def balance(self, settled: set[int]) -> None:
        """Bring every class into its bands, as far as the units allow, by moving those nearest to the thresholds."""
        movable = {
            name: [u for u in own if u not in self._kept and u not in settled]
            for name, own in sorted(self._members.items())
        }
        moved = True
        while moved:  # each move brings the counts nearer to their bands, so this ends
            moved = False
            for name, own in movable.items():
                for here, goal, asks in _ROUTES:
                    moved |= self._shift(name, here, goal, asks, own)

    def _shift(self, name: str, here: str, goal: str, asks: Callable[[bool, bool], bool], own: Sequence[int]) -> bool:
        """Move units of one class from a split to another while that brings the counts nearer to their bands."""

        def is_wanted() -> bool:
            (_, high), (low, _) = self._bands[name, here], self._bands[name, goal]
            return asks(self._counts[name, here] > high, self._counts[name, goal] < low)

        if not is_wanted():
            return False
        moved = False
        downward = SPLITS.index(here) > SPLITS.index(goal)  # by place, test comes first and training last
        for unit in [u for u in (reversed(own) if downward else own) if self.split_of[u] == here]:
            if self._gain(unit, here, goal) > 0:
                self.put(unit, goal)
                moved = True
                if not is_wanted():
                    break
        return moved

    def _gain(self, unit: int, here: str, goal: str) -> int:
        """By how many images a move brings the counts nearer to their bands."""
        return sum(
            self._off(name, here) - self._off(name, here, -n) + self._off(name, goal) - self._off(name, goal, n)
            for name, n in self._weights[unit].items()
        )

    def _off(self, name: str, goal: str, change: int = 0) -> int:
        low, high = self._bands[name, goal]
        count = self._counts[name, goal] + change
        return max(low - count, count - high, 0)

    def _band(self, name: str, goal: str) -> tuple[int, int]:
        least, size = self._least[name], self._sizes[name]
        if goal == TRAIN:
            return least[TRAIN], size
        low, high = wanted(self._shares[goal], size)
        if not self._shares[goal]:
            return 0, 0
        high = min(high, size - sum(n for other, n in least.items() if other != goal))
        return min(max(low, least[goal]), max(high, least[goal])), max(high, least[goal])

    def _minima(self, units: int) -> dict[str, int]:
        """At least one unit for training, one for test if there are two, and one for validation if there are three."""
        for_test = int(self._shares[TEST] > 0 and units >= 2)
        for_validation = int(self._shares[VALIDATION] > 0 and units >= 2 + for_test)
        return {TRAIN: 1, TEST: for_test, VALIDATION: for_validation}

    def fill_minima(self) -> None:
        """Give every class its minima, as far as units that show several classes allow it."""
        settled: list[str] = []  # the splits that have their minima already
        for goal in (TRAIN, TEST, VALIDATION):
            for name in sorted(self._members):
                if self._counts[name, goal] < self._least[name][goal]:
                    for unit in itertools.islice(self._spare(name, goal, settled), 1):
                        self.put(unit, goal)
            settled.append(goal)

    def _spare(self, name: str, goal: str, settled: Sequence[str]) -> Iterator[int]:
        """Yield the units of a class that may move to a split, the best first: small ones, near to its threshold."""
        own = [u for u in self._members[name] if u not in self._kept]  # by place
        if goal == TRAIN:
            own.reverse()
        elif goal == VALIDATION:
            own = [u for u in own if self.split_of[u] == TRAIN] + [u for u in reversed(own) if self.split_of[u] == TEST]
        own.sort(key=lambda u: (goal == VALIDATION and self.split_of[u] == TEST, self._weights[u].total()))
        for unit in own:
            here = self.split_of[unit]
            weights = self._weights[unit].items()
            if here not in settled or all(self._counts[c, here] - n >= self._least[c][here] for c, n in weights):
                yield unit


def places(samples: Sequence[Sample], units: Sequence[int], seed: int) -> dict[int, float]:
    """Each unit's place in [0, 1): the smallest among those of its groups or, without a group, of its contents."""
    groups = {(unit, s.group) for unit, s in zip(units, samples, strict=True) if s.group}
    grouped = {unit for unit, _ in groups}
    contents = {(u, grouping.content(s)) for u, s in zip(units, samples, strict=True) if u not in grouped}
    found: dict[int, float] = {}
    for unit, name in itertools.chain(((unit, f"group\0{name}") for unit, name in groups), contents):
        digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
        found[unit] = min(found.get(unit, 1.0), int.from_bytes(digest[:6], "big") / 2**48)
    return found


def _torn(samples: Sequence[Sample], units: Sequence[int]) -> set[int]:
    """Return the units without a group that show the same bytes in several classes."""
    label_of: dict[str, str] = {}
    torn, grouped = set(), set()
    for sample, unit in zip(samples, units, strict=True):
        if sample.group:
            grouped.add(unit)
        if label_of.setdefault(grouping.content(sample), sample.label) != sample.label:
            torn.add(unit)
    return torn - grouped


def _weights(
    samples: Sequence[Sample], strata: Sequence[Sequence[str]], units: Sequence[int], torn: set[int]
) -> dict[int, Counter[str]]:
    """Return the images of each class in each unit, without the torn ones; copies without a group count once."""
    weights: defaultdict[int, Counter[str]] = defaultdict(Counter)
    grouped = {unit for sample, unit in zip(samples, units, strict=True) if sample.group}
    for own, unit in zip(strata, units, strict=True):
        if unit not in torn:
            for name in own:
                weights[unit][name] = weights[unit][name] + 1 if unit in grouped else 1
    return dict(weights)
