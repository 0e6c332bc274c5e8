"""Tokens for calibration and evaluation: kinds of dataset, and the stage that tokenizes them."""
