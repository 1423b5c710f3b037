"""Runs the fuzzing client of the Autobahn test suite against our echo servers, and judges.

    run.py [SECTIONS...]       all sections, or some: `1.*`, `12.*`

The suite runs on CPython 2.7 alone: an interpreter is looked for (`PYTHON27` names one), and gets a
virtual environment below `target/autobahn`, where the reports go too. No case may fail. One that is
NON-STRICT must stand in `explained.toml` with a reason, and what stands there must be so: a case
that has become OK is an error too, but for those that are one or the other by their timing.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / "target" / "autobahn"
SUITE = "autobahntestsuite==25.10.1"
# The last one that makes environments for Python 2.7.
VIRTUALENV = "virtualenv<20.22"
# Within a section the client takes its time: 12 and 13 have minutes of compression each.
SECTION_SECONDS = 3600
SECTIONS = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*", "12.*", "13.*")
DEFLATE = ("12.*", "13.*")
# Name, application, --ws-per-message-deflate, and what is tried.
SERVERS = (
    ("asgi", "application:asgi", "on", SECTIONS),
    ("asgi-context", "application:asgi", "context", DEFLATE),
    ("rsgi", "application:rsgi", "on", SECTIONS),
)
PASSED = {"OK", "INFORMATIONAL"}

sys.path.insert(0, str(ROOT / "tests" / "python"))
from asgi.process import Server  # noqa: E402


def main(wanted: list[str]) -> int:
    """Runs these sections, or all, against every server; returns the exit code."""
    client = fuzzing_client()
    explained = tomllib.loads((HERE / "explained.toml").read_text())
    complaints = []
    for agent, application, deflate, sections in SERVERS:
        results: dict[str, Any] = {}
        options = (f"--ws-per-message-deflate={deflate}", f"--working-dir={HERE}")
        with Server(*options, app=application) as server:
            server.wait_until_ready()
            for section in [one for one in sections if not wanted or one in wanted]:
                results |= run_section(client, server, agent, section)
            server.stop()
        complaints += judge(agent, results, explained.get(agent, {}), explained["either"])
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


def fuzzing_client() -> Path:
    """The suite's program, installed if it is not."""
    environment = PLACE / "venv"
    program = environment / "bin" / "wstest"
    if program.exists():
        return program
    python = find_python()
    tools = PLACE / "tools"
    subprocess.run([sys.executable, "-m", "venv", "--clear", tools], check=True)
    subprocess.run([tools / "bin" / "pip", "install", "--quiet", VIRTUALENV], check=True)
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run(
        [tools / "bin" / "virtualenv", "--quiet", "--python", python, environment], check=True
    )
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", SUITE], check=True)
    return program


def find_python() -> str:
    """A CPython 2.7; leaves with an error where there is none."""
    candidates = [
        os.environ.get("PYTHON27", "python2.7"),
        *map(str, (Path.home() / ".pyenv" / "versions").glob("2.7.*/bin/python2.7")),
    ]
    for candidate in candidates:
        found = shutil.which(candidate)
        # A shim is there, too, where what it stands for is not.
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    sys.exit(
        "error: expected a CPython 2.7 for the Autobahn test suite, found none\n\n"
        "hint: install one, and name it: make autobahn PYTHON27=/path/to/python2.7"
    )


def run_section(client: Path, server: Server, agent: str, section: str) -> dict[str, Any]:
    """What each case of a section came to."""
    assert isinstance(server.address, tuple)
    host, port = server.address
    report = PLACE / f"{agent}-{section.removesuffix('.*')}"
    specification = {
        "outdir": str(report),
        "servers": [{"agent": agent, "url": f"ws://{host}:{port}"}],
        "cases": [section],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    path = report / "specification.json"
    path.write_text(json.dumps(specification))
    print(f"{agent} {section}", flush=True)
    subprocess.run(
        ["nice", client, "-m", "fuzzingclient", "-s", path],
        cwd=report,
        stdout=(report / "log").open("w"),
        stderr=subprocess.STDOUT,
        check=True,
        timeout=SECTION_SECONDS,
    )
    results: dict[str, Any] = json.loads((report / "index.json").read_text())[agent]
    return results


def judge(
    agent: str, results: dict[str, Any], explained: dict[str, str], either: dict[str, str]
) -> list[str]:
    """Prints a summary; returns what must not be. `either` may be NON-STRICT or OK."""
    counts: dict[str, int] = {}
    complaints = []
    for case, result in sorted(results.items()):
        behaviors = {result["behavior"], result["behaviorClose"]}
        if behaviors <= PASSED:
            verdict = "OK"
        elif behaviors <= PASSED | {"NON-STRICT"}:
            verdict = "NON-STRICT"
        else:
            verdict = "FAILED"
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict == "NON-STRICT" and case in explained | either:
            print(f"{agent} {case} is NON-STRICT: {(explained | either)[case]}")
        elif verdict == "OK" and case in explained:
            complaints.append(f"error: {agent} {case} is explained, and OK")
        elif verdict != "OK":
            complaints.append(f"error: {agent} {case} is {verdict}: {sorted(behaviors)}")
    print(f"{agent}: {counts}")
    return complaints


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
