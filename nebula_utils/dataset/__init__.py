"""Notebook 02: sources of pictures, screening, groups and folds, composition."""
