"""Calls for Python programs and notebooks: the command line's own path, with its keys."""

from pipeline.api.calls import compress, plan
from pipeline.api.outlook import Outlook
from pipeline.api.progress import Progress
from pipeline.api.result import Result, load_result
from pipeline.api.verification import Check, Verification, verify
from pipeline.errors import UserError

__all__ = [
    "Check",
    "Outlook",
    "Progress",
    "Result",
    "UserError",
    "Verification",
    "compress",
    "load_result",
    "plan",
    "verify",
]
