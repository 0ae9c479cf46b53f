"""The progress bar of long-running commands, which is shown only on a terminal."""

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
    """Return a progress bar that is shown on stderr and disappears when it ends.

    Each task needs a field `records` with the number of records processed so far. Nothing is shown if `hidden` is true
    or stderr is not a terminal.
    """
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
