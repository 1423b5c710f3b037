"""Instructions of each case, compared with the recorded ones: `make icount`, see `README.md` here.

    python3 benches/icount.py [--record]

Builds what it counts. Fails where a case has become more than 3 % dearer. A count depends on the
compiler, the C library, what the processor can do and, for scopes, on the interpreter: where they
are others than the recorded ones, there is nothing to compare with; that is said, and no failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import callgrind

RECORD = Path(__file__).with_name("icount.toml")
ROUNDS = 200
REQUESTS = (1_000, 5_000)
TOLERANCE = 0.03
HEAD = """\
# Instructions of each case, written by `make icount RECORD=1`; README.md here says what they mean.
# The counts of a section hold in the environment that it names, and in no other.
"""
# The module is no part of a package, and its file is named as cargo names libraries.
IMPORT = """\
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("scope_cases", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader("scope_cases", loader))
loader.exec_module(module)
module.measure(sys.argv[2:])
"""


@dataclass(frozen=True)
class Section:
    """Counts that were made in the same environment, by case."""

    environment: str
    instructions: dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write down what is counted")
    arguments = parser.parse_args()
    callgrind.require()
    counts = {"core": count_core, "scopes": count_scopes}
    sections = read_record()
    worse: list[str] = []
    for name, environment in environments().items():
        recorded = sections.get(name, Section(environment, {}))
        if recorded.environment != environment and not arguments.record:
            print(f"{name}: cannot compare\n  recorded with {recorded.environment}")
            print(f"  this is       {environment}")
            continue
        sections[name] = Section(environment, counts[name]())
        worse.extend(compare(recorded.instructions, sections[name].instructions))
    if arguments.record:
        write_record(sections)
        print(f"recorded in {RECORD}")
        return 0
    if worse:
        print("\nerror: expected the recorded counts and at most 3 % more", *worse, sep="\n  ")
        print("\nhint: if that is worth it, run make icount RECORD=1 and say why in the commit")
        return 1
    return 0


def environments() -> dict[str, str]:
    """By section, what its counts depend on."""
    verbose = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    told = dict(line.split(": ", 1) for line in verbose.splitlines() if ": " in line)
    parts = [verbose.splitlines()[0], told["host"], os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"]
    # Valgrind shows programs a processor with AVX2 or one without, and nothing of later extensions.
    flags = Path("/proc/cpuinfo").read_text().split()
    parts.append("AVX2" if "avx2" in flags else "no AVX2")
    if rust_flags := os.environ.get("RUSTFLAGS"):
        parts.append(rust_flags)
    core = ", ".join(parts)
    return {"core": core, "scopes": f"{core}, Python {sys.version}"}


def count_core() -> dict[str, float]:
    built = build(["--package", "granian-uring", "--bench", "parts", "--example", "hello"])
    counted = count_cases([built["parts"]])
    request = callgrind.per_request(Path(built["hello"]), REQUESTS)
    return {**counted, "server/a request to examples/hello": request}


def count_scopes() -> dict[str, float]:
    return count_cases(scopes_program())


def scopes_program() -> list[str]:
    """Scopes in the interpreter that runs this, built where its builds of the binding are."""
    version = sys.version_info
    folder = f"target/python-{version.major}.{version.minor}"
    example = ["--package", "granian-uring-python", "--example", "scope_cases"]
    built = build(example, PYO3_PYTHON=sys.executable, CARGO_TARGET_DIR=folder)
    return [sys.executable, "-c", IMPORT, built["scope_cases"]]


def build(targets: Sequence[str], **environment: str) -> dict[str, str]:
    """Builds `targets` as a release is built; returns the file of each by its name."""
    command = ["cargo", "build", "--locked", "--release", *targets]
    result = subprocess.run(
        [*command, "--message-format", "json-render-diagnostics"],
        stdout=subprocess.PIPE,
        cwd=callgrind.REPOSITORY,
        env={**os.environ, **environment},
    )
    if result.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed")
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    built = [message for message in messages if message["reason"] == "compiler-artifact"]
    return {message["target"]["name"]: message["filenames"][0] for message in built}


def count_cases(program: Sequence[str]) -> dict[str, float]:
    """Instructions of one round of each case of `program`, each in a process of its own."""
    result = subprocess.run([*program, "names"], capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"error: {' '.join(program)} names\n{result.stderr}")
    names = result.stdout.splitlines()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(names, threads.map(lambda name: count(program, name), names), strict=True))


def count(program: Sequence[str], name: str) -> float:
    command = [*program, "count", name, str(ROUNDS)]
    return callgrind.within("counted_rounds", command) / ROUNDS


def compare(before: dict[str, float], now: dict[str, float]) -> Iterator[str]:
    """Prints a line for each case; what must not be comes back."""
    for name, counted in now.items():
        recorded = before.get(name)
        if recorded is None:
            print(f"{name:<50} {counted:>10.0f}")
            yield f"{name} is not recorded"
            continue
        change = counted / recorded - 1
        note = "  better: record it" if change < -TOLERANCE else ""
        print(f"{name:<50} {recorded:>10.0f} {counted:>10.0f} {change:>+8.2%}{note}")
        if change > TOLERANCE:
            yield f"{name}: expected {recorded:.0f}, found {counted:.0f}, {change:+.2%}"
    yield from (f"{name} is recorded, and is no case" for name in before.keys() - now.keys())


def read_record() -> dict[str, Section]:
    if not RECORD.exists():
        return {}
    return {name: Section(**section) for name, section in tomllib.loads(RECORD.read_text()).items()}


def write_record(sections: dict[str, Section]) -> None:
    lines = [HEAD]
    for name, section in sections.items():
        # A string of JSON is one of TOML.
        lines += [f"[{name}]", f"environment = {json.dumps(section.environment)}", ""]
        lines += [f"[{name}.instructions]"]
        lines += [f"{json.dumps(case)} = {n:.0f}" for case, n in section.instructions.items()]
        lines += [""]
    RECORD.write_text("\n".join(lines).rstrip("\n") + "\n")


if __name__ == "__main__":
    sys.exit(main())
