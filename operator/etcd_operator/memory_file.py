"""A file that is on no disk, for libraries that take keys from files alone (Python's ssl is one)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(content: bytes) -> Iterator[str]:
    """A path under which this process can read the content, for as long as the context lasts."""
    handle = os.memfd_create("keys", os.MFD_CLOEXEC)
    try:
        os.write(handle, content)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
