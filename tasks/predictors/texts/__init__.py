"""Texts of genes as vectors, and the regression on them."""
