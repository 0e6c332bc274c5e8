"""How the codes of a weight are chosen."""
