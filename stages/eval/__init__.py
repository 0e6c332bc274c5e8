"""Evaluation of original and compressed model on text, streamed layer by layer."""
