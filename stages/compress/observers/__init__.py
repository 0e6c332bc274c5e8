"""How the scale and zero point of a weight are chosen."""
