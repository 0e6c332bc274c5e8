"""Stage choose: mixed precision, a format for every module under a budget of bits per weight."""
