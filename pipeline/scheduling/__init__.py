"""Schedules of a plan on many workers: cost of nodes, list scheduling, critical path."""
