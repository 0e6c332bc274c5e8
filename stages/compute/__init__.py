"""Device, threads and compiled loops: how arithmetic is run, never what it computes."""
