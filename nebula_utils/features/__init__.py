"""Notebook 03: frozen networks, views of a picture, and its embeddings."""
