"""Fixtures for the tests of patches."""

from tests.stages.model.threads import one_thread

__all__ = ["one_thread"]
