"""Notebook 05: what flips under colour and framing, dust response, outside sets."""
