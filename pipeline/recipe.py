"""Alias of :mod:`pipeline.config.recipe_import`, for plugins written before it moved."""

from pipeline.moved import moved

__getattr__ = moved(__name__, "pipeline.config.recipe_import")
