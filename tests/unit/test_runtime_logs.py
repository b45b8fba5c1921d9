"""What a log line looks like, ours and the libraries'."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from etcd_operator.runtime import logs


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Logging is one thing for the whole process: leave it as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    libraries = {name: logging.getLogger(name).level for name in logs.LIBRARIES}
    yield
    root.handlers[:] = before
    root.setLevel(level)
    for name, old in libraries.items():
        logging.getLogger(name).setLevel(old)
    structlog.reset_defaults()


def lines(capture: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capture.readouterr().err.splitlines()]


def test_json_lines_carry_what_was_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format_="json", level="info")
    with structlog.contextvars.bound_contextvars(cluster="ns/a", step="promote"):
        structlog.get_logger("test").info("cluster.acting", reasons=["b is in sync"])
    structlog.get_logger("test").debug("not said")
    (line,) = lines(capsys)
    assert (line["event"], line["cluster"], line["step"], line["level"]) == (
        "cluster.acting",
        "ns/a",
        "promote",
        "info",
    )
    assert line["reasons"] == ["b is in sync"]
    assert str(line["timestamp"]).endswith("Z")


def test_an_exception_is_part_of_its_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format_="json", level="info")
    try:
        raise ZeroDivisionError("oh")
    except ZeroDivisionError:
        structlog.get_logger("test").exception("failed")
    (line,) = lines(capsys)
    assert "ZeroDivisionError: oh" in str(line["exception"])


def test_libraries_speak_in_the_same_shape_and_only_of_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format_="json", level="info")
    logging.getLogger("kopf.activities").info("chatter")
    logging.getLogger("kopf.watching").error("something %s", "broke")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("something broke", "error", "kopf.watching")


def test_repeated_requests_of_kopf_are_thinned_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format_="json", level="info")
    for attempt in range(50):
        logging.getLogger("kopf.watching").error("Request attempt #%d failed; will retry: GET /x", attempt)
    logging.getLogger("kopf.running").warning("OS signals are ignored: running not in the main thread.")
    (line,) = lines(capsys)
    assert line["level"] == "warning"


def test_the_console_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(format_="console", level="info")
    structlog.get_logger("test").info("cluster.acting", cluster="ns/a")
    text = capsys.readouterr().err
    assert "cluster.acting" in text
    assert "cluster=ns/a" in text
    assert not text.startswith("{")
