"""Built-in kinds of dataset, one file each."""
