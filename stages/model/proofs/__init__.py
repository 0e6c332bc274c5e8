"""Proofs of a model's structure on a shrunken instance, and how stages are given them."""
