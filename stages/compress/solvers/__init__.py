"""Solvers: the quantized weight, by rounding (RTN) or in the metric of its inputs (GPTQ)."""
