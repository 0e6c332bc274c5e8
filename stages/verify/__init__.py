"""Stage verify: check a checkpoint against the original and the solver's result."""
