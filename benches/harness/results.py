"""What was measured so far, in a JSON file that a later run can go on with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cases import Case
from measure import Sample


@dataclass
class Outcome:
    """One entrant of one case."""

    # By the number of the round, as text: JSON has no other keys.
    rounds: dict[str, Sample] = field(default_factory=dict)
    # From the run that counts them, or why it did not.
    calls_per_answer: float | str | None = None
    # Why there are no more rounds.
    failure: str | None = None


@dataclass
class Results:
    """All figures of a run; `facts` is what they belong to."""

    facts: dict[str, Any]
    cases: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    # What is measured once: the application in-process, restarts under systemd.
    studies: dict[str, Any] = field(default_factory=dict)
    # Seconds that went into all this, over all its runs.
    seconds: float = 0.0

    def outcome(self, case: str, entrant: str) -> Outcome:
        """The figures of one entrant, at first without any."""
        return self.cases.setdefault(case, {}).setdefault(entrant, Outcome())

    def title(self, case: Case) -> str:
        """A case's title, with the version of Python if it is another one."""
        other = self.facts.get("other_python")
        return f"{case.title} {other}" if case.other_python and other else case.title

    def forget_failures(self) -> None:
        """Has every entrant tried again that has failed."""
        for outcomes in self.cases.values():
            for outcome in outcomes.values():
                outcome.failure = None
                if isinstance(outcome.calls_per_answer, str):
                    outcome.calls_per_answer = None
        self.studies = {k: v for k, v in self.studies.items() if "missing" not in v}

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        data = {
            "facts": self.facts,
            "seconds": self.seconds,
            "studies": self.studies,
            "cases": {
                case: {name: vars(outcome) for name, outcome in outcomes.items()}
                for case, outcomes in self.cases.items()
            },
        }
        new = path.with_suffix(".new")
        new.write_text(json.dumps(data, indent=1) + "\n")
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Reads the file."""
        data = json.loads(path.read_text())
        cases = {
            case: {name: Outcome(**outcome) for name, outcome in outcomes.items()}
            for case, outcomes in data["cases"].items()
        }
        return cls(data["facts"], cases, data["studies"], data["seconds"])
