"""The project's own science: the same picture in other colours, framings, or dust."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "colour": ["COUNTERFACTUALS", "compute_palette", "randomise_colour", "shift"],
        "dust": ["DarkNebula", "simulate_dark_nebula"],
        "flips": ["Shift", "find_flips"],
        "framing": ["FRAMINGS", "frame_at_random", "zoom_in", "zoom_out"],
    },
)
