"""GPTQ aimed at the original model's outputs: two chains side by side, one weight after another."""
