"""The project's own science: the same picture in other colours, framings, or dust."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "colour": ["COUNTERFACTUALS", "Shift", "compute_palette", "find_flips"],
        "dust": ["DarkNebula", "simulate_dark_nebula"],
        "framing": ["FRAMINGS", "zoom_out"],
    },
)
