"""Settings -> Keras graph."""
