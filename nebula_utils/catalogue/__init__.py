"""Notebook 01: the table of nebulae; look-up by name, by place and by frame."""
