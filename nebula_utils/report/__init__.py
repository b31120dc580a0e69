"""Every figure and table, metrics.json, the model card."""
