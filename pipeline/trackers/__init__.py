"""Adapters for experiment trackers: one small file for each."""
