"""The progress display of commands; only on a terminal."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        records = task.fields["records"]
        rate = records / task.elapsed if task.elapsed else 0
        return Text(f"{records:,} records, {rate:,.0f}/s")


def progress_bar(*, hidden: bool = False) -> Progress:
    """Return a progress bar on stderr for tasks with the field `records`; it disappears at its end."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=hidden or not sys.stderr.isatty(),
    )
