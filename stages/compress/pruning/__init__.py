"""Pruning: which entries of a weight become zero, and what the others become."""
