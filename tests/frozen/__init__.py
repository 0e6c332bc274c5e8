"""What later work must leave as it is: plan keys and the bytes of finished checkpoints."""
