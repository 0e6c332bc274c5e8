"""Translate recipe files into presswork's config: plain data in and out, no torch."""
