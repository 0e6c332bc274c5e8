"""Calibration stages: statistics of Linears' inputs, activations of the next layer, gradients."""
