"""Pixels -> feature vectors made by hand: colors, histograms, textures, edges."""
