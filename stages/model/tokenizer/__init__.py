"""A model's tokenizer files: check them, and load the tokenizer."""
