"""What the demo shows: rich where somebody watches, plain lines that come once where nobody does."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberLine:
    """What is known of one member at one moment."""

    node: str = ""
    state: str = ""
    healthy: bool = False


class Screen:
    """Headings, commands and their answers, and members as they come and go."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.started = time.monotonic()

    def heading(self, text: str) -> None:
        """What comes next, with the seconds since the start."""
        elapsed = time.monotonic() - self.started
        self.console.print(f"\n[bold cyan]{text}[/bold cyan] [dim]({elapsed:.0f} s)[/dim]", soft_wrap=True)

    def command(self, text: str) -> None:
        """A command as a user would type it."""
        self.console.print(f"[green]$[/green] {text}", soft_wrap=True)

    def answer(self, text: str) -> None:
        """What a command said."""
        self.console.print(text.rstrip(), markup=False, soft_wrap=True)

    def remark(self, text: str) -> None:
        """What the numbers mean."""
        self.console.print(f"[dim]{text}[/dim]", soft_wrap=True)

    @contextmanager
    def members(self) -> Iterator["Members"]:
        """A board of members that is kept up to date while the block runs."""
        board = Members(self.console)
        if not self.console.is_terminal:
            yield board
            return
        with Live(board.table(), console=self.console, refresh_per_second=8) as live:
            board.live = live
            yield board


class Members:
    """The members' board: a table that lives on a terminal, a line for each change elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live: Live | None = None
        self.started = time.monotonic()
        self.lines: dict[str, MemberLine] = {}
        self.since: dict[str, float] = {}
        self.status = ""

    def show(self, lines: Mapping[str, MemberLine], status: str) -> None:
        """Show this picture; on a plain log only what is new in it."""
        elapsed = time.monotonic() - self.started
        changed = {name: line for name, line in lines.items() if self.lines.get(name) != line}
        self.since.update(dict.fromkeys(changed, elapsed))
        if self.live is None:
            for name, line in sorted(changed.items()):
                where = f" on {line.node}" if line.node else ""
                self.console.print(f"  {elapsed:5.1f} s  {name}{where}: {line.state}", markup=False, soft_wrap=True)
            if status and status != self.status:
                self.console.print(f"  {elapsed:5.1f} s  status: {status}", markup=False, soft_wrap=True)
        self.lines, self.status = dict(lines), status
        if self.live is not None:
            self.live.update(self.table())

    def table(self) -> Table:
        """The picture as a table."""
        table = Table(box=None, pad_edge=False, caption=self.status or None, caption_justify="left")
        for title in ("member", "node", "state", "since"):
            table.add_column(title, min_width=8)
        for name, line in sorted(self.lines.items()):
            colour = "green" if line.healthy else "yellow"
            table.add_row(name, line.node, f"[{colour}]{line.state}[/{colour}]", f"{self.since[name]:.1f} s")
        return table
