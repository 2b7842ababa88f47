"""Similarities of genes, and retrieval and regressions made of them."""
