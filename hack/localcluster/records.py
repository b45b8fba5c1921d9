"""Small JSON files that outlive a power cut: what is read back was written whole, by us or by the one before us."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from localcluster.errors import ClusterError


def write(path: Path, content: object) -> None:
    """Put the content in the file's place at once, on disk before anything that comes after may count on it.

    Without the fsync a power cut leaves the new name with nothing in it (seen on ext4).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    with new.open("w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """What the file says, `None` where there is none. Raises ClusterError for one that cannot be read."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ClusterError(f"{path} cannot be read ({error}): reboot if anything of it still runs, remove it") from None
