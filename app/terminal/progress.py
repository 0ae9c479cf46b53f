"""The progress bar of long-running commands, which is shown only on a terminal."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from app.counts import counted


class ProgressDisplay(Protocol):
    """Shows how much of each task is done. `records` is the number of records processed so far."""

    def add_task(self, description: str, *, total: float | None, records: int) -> Any:
        """Show a new task, of `total` units if that is known. Return the task, for `update`."""

    def update(self, task: Any, /, *, completed: float, records: int) -> object:
        """Show that `completed` units of a task are done."""


class _HiddenDisplay:
    def add_task(self, description: str, *, total: float | None, records: int) -> None: ...

    def update(self, task: Any, /, *, completed: float, records: int) -> None: ...


def progress_bar(*, hidden: bool = False) -> AbstractContextManager[ProgressDisplay]:
    """Return a progress bar that is shown on stderr while its context is entered.

    Nothing is shown if `hidden` is true or stderr is not a terminal.
    """
    if hidden or not sys.stderr.isatty():
        return nullcontext(_HiddenDisplay())
    from rich import progress  # noqa: PLC0415  # its import takes a twentieth of the start of a command
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class RateColumn(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            records = task.fields["records"]
            rate = records / task.elapsed if task.elapsed else 0
            return Text(f"{counted(records, 'record')}, {rate:,.0f}/s")

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        RateColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
