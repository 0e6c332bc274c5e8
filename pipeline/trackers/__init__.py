"""Telling an experiment tracker about a run: one small file for each tracker."""
