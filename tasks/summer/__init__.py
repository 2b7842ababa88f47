"""SUMMER (Wu et al. 2025): summarise, retrieve, let a language model answer, count votes."""
