"""Ours against h11 and llhttp: the corpus of the Rust tests, and generated connections.

Whatever they understand differently has its reason in `disagreements.toml`, each reason has a case
that still shows it, and valid requests are understood by all of them alike. `SEED` chooses other
generated connections, `CASES` how many of each kind.
"""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from codec import generate, peers
from codec.peers import Verdict

CORPUS = peers.ROOT / "tests/corpus/http1"
SEED = int(os.environ.get("SEED", "9112"))
CASES = int(os.environ.get("CASES", "3000"))
PEERS: dict[str, Callable[[bytes], Verdict]] = {
    "h11": peers.of_h11,
    "httptools": peers.of_httptools,
}


@dataclass(frozen=True)
class Reason:
    """An entry of `disagreements.toml`."""

    peers: list[str]
    ours: str
    theirs: str
    case: str
    section: str
    right: str
    why: str
    when: str = ""

    def explains(self, peer: str, found: tuple[str, str], connection: bytes) -> bool:
        return (
            peer in self.peers
            and found == (self.ours, self.theirs)
            and re.search(self.when.encode(), connection) is not None
        )


REASONS = [
    Reason(**entry)
    for entry in tomllib.loads(Path(__file__).with_name("disagreements.toml").read_text())[
        "disagreement"
    ]
]


def disagreement(ours: Verdict, theirs: Verdict) -> tuple[str, str] | None:
    """How two verdicts on the same bytes differ: what we say, and what they say."""
    for our, their in zip(ours.requests, theirs.requests, strict=False):
        for field in ("method", "target", "version", "headers", "body", "keeps_alive"):
            if getattr(our, field) != getattr(their, field):
                return f"another {field}", f"another {field}"
    we, they = len(ours.requests), len(theirs.requests)
    if theirs.is_upgraded and we >= they:
        return "has no upgrade", "upgrades"
    if ours.error is not None and (theirs.error is None or we < they):
        return ours.error, "accepts"
    if theirs.error is not None and (ours.error is None or they < we):
        return "accepts", theirs.error
    assert we == they, (ours, theirs)
    return None


def disagreements(connections: Iterable[bytes]) -> Iterator[tuple[str, tuple[str, str], bytes]]:
    """Peer, difference and bytes of each disagreement."""
    connections = list(connections)
    for connection, verdict in zip(connections, peers.ours(connections), strict=True):
        for peer, understand in PEERS.items():
            found = disagreement(verdict, understand(connection))
            if found is not None:
                yield peer, found, connection


def assert_explained(connections: Iterable[bytes]) -> None:
    unexplained: dict[tuple[str, str, str], bytes] = {}
    for peer, found, connection in disagreements(connections):
        if not any(reason.explains(peer, found, connection) for reason in REASONS):
            shortest = unexplained.setdefault((peer, *found), connection)
            unexplained[(peer, *found)] = min(shortest, connection, key=len)
    lines = [
        f"{peer}: {ours!r} / {theirs!r}: {shown!r}"
        for (peer, ours, theirs), shown in unexplained.items()
    ]
    assert not lines, f"SEED={SEED}, not in disagreements.toml:\n" + "\n".join(lines)


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    cases = {path.stem: path.read_bytes() for path in CORPUS.glob("*/*.http")}
    assert len(cases) > 400
    return cases


def test_all_understand_valid_requests_alike() -> None:
    random = Random(SEED)
    connections = [generate.valid(random) for _ in range(CASES)]
    assert [error for _, error, _ in disagreements(connections)] == [], f"SEED={SEED}"
    assert all(verdict.error is None for verdict in peers.ours(connections)), f"SEED={SEED}"


def test_disagreements_on_the_corpus_are_explained(corpus: dict[str, bytes]) -> None:
    assert_explained(corpus.values())


def test_disagreements_on_generated_connections_are_explained(corpus: dict[str, bytes]) -> None:
    random = Random(SEED)
    assert_explained(generate.assembled(random) for _ in range(CASES))
    originals = [*corpus.values(), *(generate.valid(random) for _ in range(len(corpus)))]
    assert_explained(generate.damaged(random, originals) for _ in range(CASES))


def test_every_reason_is_needed(corpus: dict[str, bytes]) -> None:
    shown = [(reason, peer) for reason in REASONS for peer in reason.peers]
    verdicts = peers.ours(corpus[reason.case] for reason, _ in shown)
    for (reason, peer), verdict in zip(shown, verdicts, strict=True):
        connection = corpus[reason.case]
        found = disagreement(verdict, PEERS[peer](connection))
        explains = found is not None and reason.explains(peer, found, connection)
        assert explains, f"{peer} and {reason.case}: {found}, not {reason.ours, reason.theirs}"
        others = [other for other in REASONS if other.explains(peer, found or ("", ""), connection)]
        assert others == [reason], f"{peer} and {reason.case}: more than one reason"


def test_every_reason_says_who_is_right() -> None:
    for reason in REASONS:
        assert reason.right in ("ours", "both"), f"{reason.case}: a bug of ours, to be repaired"
        assert re.fullmatch(r"RFC \d+ §\d+(\.\d+)*", reason.section), reason.section
        assert reason.why
