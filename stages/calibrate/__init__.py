"""Stages calibrate and propagate: what a layer's Linears see, and what the next layer is fed."""
