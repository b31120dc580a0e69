"""Notebook 04: heads, cross-validation, scores with intervals, certainty, export."""
