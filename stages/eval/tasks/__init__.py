"""Task scores of original and compressed model, by lm-evaluation-harness."""
