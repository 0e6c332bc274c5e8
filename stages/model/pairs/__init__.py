"""Smoothing pairs: found by experiment on a small model of a class, proven there, and mapped."""
