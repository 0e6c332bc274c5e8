"""Round-to-nearest checkpoints of presswork against those of llm-compressor, byte for byte."""
