"""The report of the attacks: what was measured, and with which seed."""

import pytest

REPORT_LINES = pytest.StashKey[list[str]]()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints what was measured."""
    if lines := config.stash.get(REPORT_LINES, []):
        terminalreporter.section("attacks")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the summary of the run."""
    return request.config.stash.setdefault(REPORT_LINES, [])
