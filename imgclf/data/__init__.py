"""Files -> Dataset -> batches of pixels."""
