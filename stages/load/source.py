"""Alias of :mod:`stages.load.model_kind`, for plugins written before it moved."""

from pipeline.moved import moved

__getattr__ = moved(__name__, "stages.load.model_kind")
