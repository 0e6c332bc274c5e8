"""Alias of :mod:`stages.compress.layer.state`, for plugins written before it moved."""

from pipeline.moved import moved

__getattr__ = moved(__name__, "stages.compress.layer.state")
