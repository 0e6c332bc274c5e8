"""Reports of compressed layers and of sensitivities: sections, heat maps, distributions."""
