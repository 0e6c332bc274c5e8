"""Device, threads and compiled loops: how arithmetic runs, not what it computes."""
