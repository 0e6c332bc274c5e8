"""One decoder layer being compressed: its state, its statistics, and what is written of it."""
