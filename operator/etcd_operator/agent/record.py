"""What a run keeps on the node beside the former manifest, so that a later run can finish or undo what it began.

Pure, but for `Records`, which reads and writes it as files.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass

from etcd_operator.agent.node_files import NodeFiles
from etcd_operator.agent.plan import SAVED_FOLDER
from etcd_operator.agent.processes import ProcessID

SAVED = f"{SAVED_FOLDER}/kube-apiserver.yaml"
STATE = f"{SAVED_FOLDER}/state.json"


def digest(manifest: bytes) -> str:
    """A manifest in a word."""
    return hashlib.sha256(manifest).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One replacement of the manifest.

    wanted, former: digests of the manifest that comes and of the one that is kept. processes: kube-apiservers that ran
    before. files: what the certificate files held before, by path; `None`: not there. failed: why all is put back;
    from then on, nothing but that is done. done: whether the API server was seen ready with the wanted manifest; from
    then on, nothing is put back any more.
    """

    wanted: str
    former: str
    processes: frozenset[ProcessID]
    files: Mapping[str, bytes | None]
    failed: str = ""
    done: bool = False

    def to_json(self) -> bytes:
        """As `parse` takes it."""
        told = {
            "wanted": self.wanted,
            "former": self.former,
            "processes": [[each.boot, each.pid, each.start] for each in sorted(self.processes)],
            "files": {path: None if held is None else b64encode(held).decode() for path, held in self.files.items()},
            "failed": self.failed,
            "done": self.done,
        }
        return json.dumps(told, indent=1).encode()

    @classmethod
    def parse(cls, text: bytes) -> "Record":
        """Raises ValueError for what is none."""
        try:
            told = json.loads(text)
            return cls(
                wanted=str(told["wanted"]),
                former=str(told["former"]),
                processes=frozenset(ProcessID(str(boot), int(pid), int(at)) for boot, pid, at in told["processes"]),
                files={str(path): None if held is None else b64decode(held) for path, held in told["files"].items()},
                failed=str(told["failed"]),
                done=bool(told["done"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record: {error!r}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """The record of a node and the manifest that belongs to it; every method raises `OSError`."""

    files: NodeFiles

    def read(self) -> Record | None:
        """The record; `None` where there is none, or none that can be read, so that nothing can be put back by it."""
        text = self.files.read(STATE)
        try:
            return Record.parse(text) if text is not None else None
        except ValueError:
            return None

    def former_manifest(self, record: Record) -> bytes | None:
        """The manifest that the record is about; `None` where it is not there any more."""
        saved = self.files.read(SAVED)
        return saved if saved is not None and digest(saved) == record.former else None

    def begin(self, record: Record, former: bytes) -> None:
        """Keep the manifest first: a record without it would be of no use."""
        self.files.write(SAVED, former)
        self.files.write(STATE, record.to_json())

    def note(self, record: Record) -> None:
        """Write the record alone."""
        self.files.write(STATE, record.to_json())

    def forget(self) -> None:
        """Take away the record; the manifest stays, for people."""
        self.files.remove(STATE)
