"""Saliency of routed experts, for pruning them (REAP)."""
