"""Limits of the whole machine that several nodes together exceed: raised while clusters exist, then put back.

One node needs some 15 inotify instances (every kubelet, kube-proxy and control-plane program watches files), and many
machines allow 128 in all; the program that gets none says "too many open files" and dies. Values are only ever raised.
The caller holds the machine lock.
"""

from __future__ import annotations

from pathlib import Path

from localcluster import records

#: What is enough for sixteen clusters, by name below /proc/sys.
WANTED = {"fs/inotify/max_user_instances": 4096}
PROC_SYS = Path("/proc/sys")


def raise_all(record: Path) -> None:
    """Raise what is lower than wanted; `record` keeps what it was before the first time."""
    before = records.read(record) or {}
    for name, wanted in WANTED.items():
        value = int((PROC_SYS / name).read_text())
        if value < wanted:
            before.setdefault(name, value)
            records.write(record, before)
            (PROC_SYS / name).write_text(str(wanted))


def restore_all(record: Path) -> None:
    """Put back what `raise_all` found, unless somebody chose another value meanwhile."""
    for name, value in (records.read(record) or {}).items():
        if int((PROC_SYS / name).read_text()) == WANTED.get(name):
            (PROC_SYS / name).write_text(str(value))
    record.unlink(missing_ok=True)
