"""Dataset + settings -> Run."""
