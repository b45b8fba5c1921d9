"""The one error that the local cluster's nodes raise for a person to read."""

from __future__ import annotations

from pathlib import Path


class ClusterError(Exception):
    """Something went wrong that a person should read about; never a programming error.

    `log` is the file that tells why, where one program is to blame.
    """

    def __init__(self, message: str, *, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log

    def told(self, lines: int = 20) -> str:
        """The message, and where a program is to blame: its log's path and last `lines` lines."""
        if self.log is None:
            return str(self)
        return f"{self}\nThe log to read: {self.log}\n{last_lines(self.log, lines)}"


def last_lines(path: Path, count: int) -> str:
    """The last `count` lines of a text file, indented; a sentence instead where there are none."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        return f"    ({error})"
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:]) or "    (empty)"
