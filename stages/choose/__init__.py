"""The stage `choose`: a format for every module, as good as a budget allows."""
