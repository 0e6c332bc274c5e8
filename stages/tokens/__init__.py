"""From text to token ids: the kinds of dataset, and the stage that tokenises them."""
