"""The versions in docs/frameworks.md are those that are tested."""

import re

from asgi.process import HERE

ROOT = HERE.parents[1]


def test_the_table_has_the_versions_that_are_tested() -> None:
    pinned = re.findall(r"^([a-z0-9]+)==([0-9.]+)", requirements(), re.MULTILINE)
    table = (ROOT / "docs" / "frameworks.md").read_text()
    rows = re.findall(r"^\| (\w+) \| ([0-9., ]+) \|", table, re.MULTILINE)
    assert len(rows) >= 10
    for name, versions in rows:
        tested = [version for package, version in pinned if package == name.lower()]
        assert versions.split(", ") == tested, name


def requirements() -> str:
    """What the tests install."""
    return (ROOT / "tests" / "requirements.txt").read_text()
