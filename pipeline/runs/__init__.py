"""Run folders: those of earlier commands, and how two runs of one experiment differ."""
