"""Learned rounding: codes and scales of a whole block, learned on the block's own output."""
