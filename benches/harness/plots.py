"""The plots of a run, as SVG and PNG.

    python plots.py FOLDER

Reads `results.json` in the folder; needs matplotlib, and nothing else of this folder's environment.
Writes the names of the plots to stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from cases import Case, all_cases
from figures import Spread, number, spread
from matplotlib import ticker
from peers import OURS
from results import Outcome, Results

COLOURS = {
    OURS: "#0b6e4f",
    "granian": "#c44536",
    "uvicorn": "#3d5a80",
    "fastpysgi": "#e09f3e",
    "socketify": "#8d6a9f",
    "hypercorn": "#7a7d7d",
    "gunicorn asgi": "#6f4518",
    "gunicorn gthread": "#6f4518",
    "uwsgi": "#335c67",
    "robyn": "#b56576",
}
COLUMNS = 4
# Text that stays text is a third of the size.
plt.rcParams["svg.fonttype"] = "none"
Bars = list[tuple[str, str, Spread]]


def main() -> None:
    """Draws what there are figures for."""
    folder = Path(sys.argv[1])
    results = Results.load(folder / "results.json")
    plots = {
        "cpu": [case for case in all_cases() if case.group not in ("latency", "idle")],
        "memory": [case for case in all_cases() if case.group == "idle"],
    }
    for name, cases in plots.items():
        panels = [(case, bars(case, results.cases.get(case.name, {}))) for case in cases]
        panels = [(case, found) for case, found in panels if len(found) > 1]
        if panels:
            save(grid(results, panels, name), folder, name)
    if figure := latency(results):
        save(figure, folder, "latency")
    if figure := sweep(results):
        save(figure, folder, "concurrency")
    if figure := start(results):
        save(figure, folder, "start")


def save(figure: Any, folder: Path, name: str) -> None:
    """Writes both formats."""
    for ending in ("svg", "png"):
        figure.savefig(folder / f"{name}.{ending}", dpi=110, bbox_inches="tight")
    plt.close(figure)
    print(name)


def bars(case: Case, outcomes: dict[str, Outcome], figure: str = "") -> Bars:
    """A case's entrants with a figure: name, peer, spread."""
    figure = figure or ("bytes_each" if case.load[0] == "idle" else "cpu_us")
    found: Bars = []
    for entrant in case.entrants:
        outcome = outcomes.get(entrant.name)
        value = spread(outcome.rounds, figure) if outcome else None
        if value:
            found.append((entrant.variant or entrant.name, entrant.peer, value))
    return found


def grid(results: Results, panels: list[tuple[Case, Bars]], name: str) -> Any:
    """A panel of horizontal bars for each case; the whiskers are minimum and maximum."""
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.4 * columns, 2.3 * rows), squeeze=False, layout="constrained"
    )
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, (case, found) in zip(axes.flat, panels, strict=False):
        draw_bars(place, found)
        place.set_title(results.title(case), fontsize=10)
        unit = "bytes" if name == "memory" else "µs of CPU"
        place.set_xlabel(f"{unit} per {case.unit}", fontsize=8)
    return figure


def draw_bars(place: Any, found: Bars) -> None:
    """Bars with whiskers and figures."""
    labels = [label for label, _, _ in found]
    values = [value for _, _, value in found]
    medians = [value.median for value in values]
    whiskers = [
        [value.median - value.low for value in values],
        [value.high - value.median for value in values],
    ]
    colours = [COLOURS.get(peer, "#4a6fa5") for _, peer, _ in found]
    places = range(len(found))
    place.barh(places, medians, xerr=whiskers, color=colours, error_kw={"elinewidth": 1})
    place.set_yticks(places, labels, fontsize=8)
    place.tick_params(axis="x", labelsize=8)
    place.xaxis.set_major_locator(ticker.MaxNLocator(6))
    place.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.4g}"))
    place.invert_yaxis()
    place.spines[["top", "right"]].set_visible(False)
    most = max(value.high for value in values)
    place.set_xlim(0, most * 1.18)
    for index, value in enumerate(values):
        text = number(value.median)
        place.text(value.high + most * 0.02, index, text, va="center", fontsize=8)


def latency(results: Results) -> Any:
    """p50, p99 and p99.9 at each fixed rate, on a logarithmic scale."""
    cases = [case for case in all_cases() if case.group == "latency"]
    cases = [case for case in cases if bars(case, results.cases.get(case.name, {}))]
    if not cases:
        return None
    figure, axes = plt.subplots(
        1, len(cases), figsize=(5 * len(cases), 3.4), squeeze=False, layout="constrained"
    )
    quantiles = ("p50", "p99", "p99.9")
    for place, case in zip(axes.flat, cases, strict=True):
        for entrant in case.entrants:
            outcome = results.cases[case.name].get(entrant.name)
            found = [spread(outcome.rounds, f"{q}_us") for q in quantiles] if outcome else []
            values = [one for one in found if one]
            if len(values) < len(quantiles):
                continue
            draw_line(place, list(range(len(quantiles))), values, entrant.name, entrant.peer)
        place.set_yscale("log")
        place.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        place.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
        place.yaxis.set_minor_locator(ticker.NullLocator())
        place.set_xticks(range(len(quantiles)), quantiles)
        place.set_ylabel("µs from when a request was due")
        place.set_title(case.title, fontsize=10)
        place.legend(fontsize=8, frameon=False)
    return figure


def sweep(results: Results) -> Any:
    """CPU per request and throughput over the number of connections."""
    cases = {int(case.load[4]): case for case in all_cases() if case.group == "concurrency"}
    cases[64] = next(case for case in all_cases() if case.name == "asgi-hello")
    numbers = sorted(one for one in cases if cases[one].name in results.cases)
    if len(numbers) < 2:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    titles = {"cpu_us": "µs of CPU per request", "per_second": "requests per second"}
    for place, (name, title) in zip(axes.flat, titles.items(), strict=True):
        for entrant in cases[numbers[0]].entrants:
            outcomes = {one: results.cases[cases[one].name].get(entrant.name) for one in numbers}
            found = {one: spread(out.rounds, name) for one, out in outcomes.items() if out}
            points = {one: value for one, value in found.items() if value}
            draw_line(place, list(points), list(points.values()), entrant.name, entrant.peer)
        place.set_xscale("log", base=2)
        place.set_xticks(numbers, [str(one) for one in numbers])
        place.set_xlabel("connections")
        place.set_ylim(bottom=0)
        place.set_title(title, fontsize=10)
        place.legend(fontsize=8, frameon=False)
    return figure


def draw_line(place: Any, xs: list[int], values: list[Spread], label: str, peer: str) -> None:
    """A line of medians with whiskers."""
    medians = [value.median for value in values]
    whiskers = [
        [value.median - value.low for value in values],
        [value.high - value.median for value in values],
    ]
    colour = COLOURS.get(peer, "#4a6fa5")
    place.errorbar(xs, medians, yerr=whiskers, label=label, color=colour, marker="o", capsize=2)
    place.spines[["top", "right"]].set_visible(False)


def start(results: Results) -> Any:
    """From the start of the program to its first answer, and its memory then."""
    case = next(case for case in all_cases() if case.name == "asgi-hello")
    outcomes = results.cases.get(case.name, {})
    titles = {
        "first_answer_ms": "ms from start to first answer",
        "pss_fresh_mib": "MiB of memory (PSS) when fresh",
    }
    panels = [(title, bars(case, outcomes, name)) for name, title in titles.items()]
    if not all(found for _, found in panels):
        return None
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
    for place, (title, found) in zip(axes.flat, panels, strict=True):
        draw_bars(place, found)
        place.set_title(title, fontsize=10)
    return figure


if __name__ == "__main__":
    main()
