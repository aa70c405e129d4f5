"""Log lines: one JSON object each; on a terminal a line that people read, with the time of day."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor


def configure_logging(level: str) -> None:
    """Send our own log lines to standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            *_rendering(sys.stderr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _rendering(output: TextIO) -> list[Processor]:
    if output.isatty():
        timestamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        return [timestamp, structlog.dev.ConsoleRenderer(pad_event_to=0, pad_level=False)]
    return [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()]
