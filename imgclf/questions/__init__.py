"""A run or a data set, and a question about it -> the answer, as tables and pages."""
