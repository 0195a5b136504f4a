"""Labels and probabilities -> scores, tables and plots."""
