"""Classify photographs of nebulae by transfer learning, and see what is looked at."""

__version__ = "0.1.0"
