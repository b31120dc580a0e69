"""The project's own science: the same picture in other colours, framings, or dust."""
