"""Stage outline: what a checkpoint consists of, by its tensors' names, without a model class."""
