"""Translators of recipe files into this project's config: plain data in and out, no torch."""
