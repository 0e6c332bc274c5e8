"""Alias of :mod:`stages.tokens.dataset_files`, for plugins written before it moved."""

from pipeline.moved import moved

__getattr__ = moved(__name__, "stages.tokens.dataset_files")
