"""What several stages know about a language model: blueprint, skeleton, replay."""
