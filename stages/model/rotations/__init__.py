"""Rotations of a whole model: where they may be, proven on a small one of its class, and a plan."""
