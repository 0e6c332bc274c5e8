"""Structure of a model that is proven or seen on a shrunken instance of its class."""
