"""Runners: one interface, and the engines behind it."""
