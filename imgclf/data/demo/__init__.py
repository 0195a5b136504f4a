"""Sample data: images of autumn leaves, drawn from a seed."""
