"""Tests of pipeline.scheduling."""
