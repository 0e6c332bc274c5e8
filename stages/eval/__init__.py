"""Evaluation: original and compressed model compared on text, streamed layer by layer."""
