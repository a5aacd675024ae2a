"""Progress bars with the time left, on standard error, so that results on standard output stay clean."""

import os
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# of torchrun's processes only the first one speaks
console = Console(stderr=True, quiet=int(os.environ.get("RANK", "0")) > 0, markup=False, emoji=False)
T = TypeVar("T")


def bar() -> Progress:
    """A progress bar of the project's look; use it as a context manager."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def track(items: Iterable[T], description: str, *, total: int | None = None) -> Iterator[T]:
    """Pass the items on, drawing a bar while they are used. `total` is needed where they have no length."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar() as progress:
        task = progress.add_task(description, total=total, note="")
        for item in items:
            yield item
            progress.advance(task)


def say(message: str) -> None:
    """One line about what is going on."""
    console.print(message, highlight=False)
