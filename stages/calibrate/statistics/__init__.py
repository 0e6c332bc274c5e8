"""Statistics of the inputs of a Linear; each is found by its name in registry group "statistic"."""
