"""Log file run.log: one JSON object per line, for `grep` and `jq`."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.masking import masked
from pipeline.messages import message
from pipeline.report.text_files import unwritable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formatter for one line: time, level, logger, message, fields of `extra`, traceback.

    Secrets are masked.
    """

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created))
        line = {
            "time": f"{seconds}.{int(record.msecs):03d}{time.strftime('%z')}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return masked(json.dumps(line, default=str, ensure_ascii=False))


class _LogFile(logging.FileHandler):
    """A log file that tells once, in one line, that it cannot be written."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            message(f"warning: {self.baseFilename} cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write all log records of this process to a file as well.

    Raises UserError if the file cannot be opened; if its disk is full later, that is told once.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        with contextlib.suppress(OSError):  # a full disk has been told of
            handler.close()
