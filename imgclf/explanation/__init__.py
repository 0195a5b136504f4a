"""Why: what a network computes, layer by layer, and which part of an image decided."""
