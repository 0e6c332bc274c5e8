"""Choice of the factors of smoothing pairs by the output error that candidates lead to."""
