"""The results, as tables for people and as JSON for programs."""

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measurement import Sample
from benchmarks.operations import WHOLE_LIST


@dataclass(frozen=True)
class Series:
    """The samples of one side for one operation, one per round."""

    operation: str
    connections: int
    side: str
    samples: Sequence[Sample]

    def median(self, metric: Callable[[Sample], float]) -> float:
        """Return the median over the rounds."""
        return median(map(metric, self.samples))

    def format_spread(self, metric: Callable[[Sample], float]) -> str:
        """Return the median with the minimum and maximum in parentheses."""
        return format_spread([metric(sample) for sample in self.samples])

    @property
    def total_cpu(self) -> float:
        """The median of all CPU time per request."""
        return self.median(lambda sample: sample.server_cpu + sample.database_cpu)


def format_spread(values: Sequence[float]) -> str:
    """Return the median with the minimum and maximum in parentheses."""
    return f"{format_number(median(values))} ({format_number(min(values))}–{format_number(max(values))})"


def format_number(value: float) -> str:
    """Format a number with three significant digits, or with all digits before the decimal point."""
    digits = len(str(int(round(value, 2))))
    return f"{value:,.{max(0, 3 - digits)}f}"


HEADINGS = (
    *("operation", "connections", "side", "requests/s", "p50 ms", "p99 ms"),
    *("server CPU ms", "PostgreSQL CPU ms", "memory MB"),
)
"""CPU time is per request."""
LIST_HEADINGS = ("side", "patients/s", "seconds", "server CPU ms", "PostgreSQL CPU ms", "memory MB")


def comparison_tables(all_series: Sequence[Series]) -> str:
    """Return Markdown tables; the last columns compare each side with the first one, which their heading names."""
    loads = [series for series in all_series if series.operation != WHOLE_LIST.name]
    lists = [series for series in all_series if series.operation == WHOLE_LIST.name]
    parts = []
    if loads:
        parts += [
            *_comparison_head(HEADINGS, loads[0].side),
            *(line for group in _group_series(loads) for line in _series_rows(group)),
            "",
        ]
    if lists:
        parts += ["The whole list, one request at a time; CPU time is per thousand patients.", ""]
        parts += [*_comparison_head(LIST_HEADINGS, lists[0].side), *_list_rows(lists)]
    return "\n".join(parts)


def _series_rows(group: Sequence[Series]) -> Iterator[str]:
    for series in group:
        cells = [series.operation, str(series.connections), series.side, series.format_spread(lambda s: s.per_second)]
        cells += [series.format_spread(lambda s: s.p50), series.format_spread(lambda s: s.p99)]
        yield table_row([*cells, *_cost_cells(series), *_comparison_cells(group[0], series)])


def _list_rows(lists: Sequence[Series]) -> Iterator[str]:
    for series in lists:
        cells = [
            series.side,
            series.format_spread(lambda s: s.per_second),
            series.format_spread(lambda s: s.p50 / 1000),
        ]
        yield table_row([*cells, *_cost_cells(series, 1000), *_comparison_cells(lists[0], series)])


def _comparison_head(headings: Sequence[str], reference_side: str) -> list[str]:
    return table_head([*headings, f"{reference_side}: speed ×", "thrift ×"])


def table_head(headings: Sequence[str]) -> list[str]:
    """Return the first lines of a Markdown table."""
    return [table_row(headings), table_row(["---"] * len(headings))]


def table_row(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cost_cells(series: Series, unit: int = 1) -> list[str]:
    return [
        series.format_spread(lambda sample: sample.server_cpu * unit),
        series.format_spread(lambda sample: sample.database_cpu * unit),
        format_number(series.median(lambda sample: sample.memory)),
    ]


def _comparison_cells(reference: Series, series: Series) -> list[str]:
    if series is reference:
        return ["", ""]
    speed = reference.median(lambda sample: sample.per_second) / series.median(lambda sample: sample.per_second)
    return [f"{speed:.2f}", f"{series.total_cpu / reference.total_cpu:.2f}"]


def _group_series(all_series: Sequence[Series]) -> Iterator[list[Series]]:
    """Yield the series to compare: one operation with one number of connections."""
    for key in dict.fromkeys((series.operation, series.connections) for series in all_series):
        yield [series for series in all_series if (series.operation, series.connections) == key]


def write_json(path: Path, arguments: argparse.Namespace, measurements: Sequence[dict[str, Any]]) -> None:
    """Write every sample, the parameters, and a description of the machine."""
    parameters = {name: value for name, value in vars(arguments).items() if name != "json"}
    document = {"machine": describe_machine(), "parameters": parameters, "measurements": measurements}
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")


def describe_machine() -> dict[str, str]:
    """Return the processor, the system and the Python version."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "processor": f"{os.cpu_count()} × {models[0] if models else platform.machine()}",
        "system": platform.platform(),
        "python": platform.python_version(),
    }
