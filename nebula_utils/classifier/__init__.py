"""Notebook 06: the exported classifier, its explanations, the page and its limits."""
