"""Statistics: the spread of a figure over the rounds, and the ratio of two entrants."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Rounds = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)} to {number(self.high)})"


def number(value: float) -> str:
    """Three digits, and no more than are known."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def spread(rounds: Rounds, name: str) -> Spread | None:
    """A figure over the rounds; none where it was not measured."""
    values = [sample[name] for sample in rounds.values() if name in sample]
    return Spread.of(values) if values else None


def ratio(ours: Rounds, theirs: Rounds, name: str) -> Spread | None:
    """Ours over theirs, round by round: a machine's speed drifts between rounds, and within one
    much less. Rounds that only one of them has are left out."""
    values = [
        ours[key][name] / theirs[key][name]
        for key in ours
        if key in theirs and name in ours[key] and theirs[key].get(name)
    ]
    return Spread.of(values) if values else None
