"""Stage patch: what the model consists of, with modules made compressible."""
