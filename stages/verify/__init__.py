"""Verifying: what a checkpoint must be, checked against the original and the solver's choice."""
