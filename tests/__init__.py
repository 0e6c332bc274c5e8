"""Tests of presswork; they mirror the packages."""
