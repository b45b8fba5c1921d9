"""Ask a DNS server for a name's IPv4 address until it tells one: `dns_probe.py SERVER NAME SECONDS`.

A program of its own (standard library only): it runs inside a node's network. Exits with 0 and prints the address,
or with 1 when there was none within SECONDS.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

#: Seconds to wait for one answer; UDP may lose either packet, so the question is then asked again.
PATIENCE = 0.3


def query(name: str) -> bytes:
    """A DNS question for the A record of `name` (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return struct.pack(">HHHHHH", 0x4554, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def address_in(answer: bytes, question: bytes) -> str | None:
    """The first address in an answer that repeats the question and holds one A record right after it."""
    if len(answer) < len(question) + 16 or answer[:2] != question[:2]:
        return None
    answers = struct.unpack(">H", answer[6:8])[0]
    return socket.inet_ntoa(answer[-4:]) if answer[3] & 0x0F == 0 and answers >= 1 else None


def ask(server: str, name: str, seconds: float) -> str | None:
    """The address of `name`, None when none came within `seconds`."""
    question = query(name)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talk:
            talk.settimeout(PATIENCE)
            talk.connect((server, 53))
            asked = time.monotonic()
            try:
                talk.send(question)
                if address := address_in(talk.recv(512), question):
                    return address
            except OSError:
                pass
            # Refused at once while the Service has no pod yet: keep the pace.
            time.sleep(max(0.0, asked + PATIENCE - time.monotonic()))
    return None


if __name__ == "__main__":
    found = ask(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    print(found or "no answer")
    sys.exit(0 if found else 1)
