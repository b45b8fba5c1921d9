"""Logging: structlog for our own lines, the libraries' lines in the same shape.

Every line of a reconcile carries `cluster`, and `step` where the controller bound one. Secrets never reach a
log line, as objects are not logged, only their names.
"""

import logging
import sys
from time import monotonic
from typing import Any, Literal

import structlog

#: Loggers of libraries, and the least that they may say unless debugging.
LIBRARIES = ("aiohttp", "asyncio", "grpc", "kopf", "kubernetes")
#: Seconds between lines about requests that Kopf repeats: while an API server is away there are hundreds.
REPEAT_EVERY = 10.0


def configure(*, format_: Literal["json", "console"], level: str) -> None:
    """Send all log lines to stderr in one format; call once, before anything logs."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    if format_ == "json":
        render: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        render = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    handler.addFilter(_KopfFilter(debug=level == "debug"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in LIBRARIES:
        logging.getLogger(library).setLevel("DEBUG" if level == "debug" else "WARNING")


class _KopfFilter(logging.Filter):
    """Takes out of Kopf's lines what is normal here, and thins out what it says of an API server that is away."""

    #: True of every start: we run it on a thread of its own, with signals handled elsewhere.
    EXPECTED = ("OS signals are ignored",)

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self._debug = debug
        self._last = -REPEAT_EVERY

    def filter(self, record: logging.LogRecord) -> bool:
        if self._debug or not record.name.startswith("kopf"):
            return True
        message = record.getMessage()
        if message.startswith(self.EXPECTED):
            return False
        if message.startswith("Request attempt"):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            if monotonic() - self._last < REPEAT_EVERY:
                return False
            self._last = monotonic()
        return True
