"""Completion of command lines in bash, zsh and fish: groups, options, keys, values and paths."""
