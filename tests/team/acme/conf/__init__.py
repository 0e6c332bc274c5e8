"""The YAML files; a package, so that a wheel carries them and presswork finds them."""
