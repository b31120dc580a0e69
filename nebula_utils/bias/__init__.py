"""Notebook 05: what a head looks at, and how it does on pictures from elsewhere.

`measures` tells which answers flip, how much colour that takes and where the evidence
lies; `dust_response` asks about more and more dust; `outside` judges on other people's
pictures and by photographer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dust_response": ["measure_dust_response"],
        "measures": [
            "list_flips",
            "measure_flip_distances",
            "measure_localisation",
            "predict_nebulae",
        ],
        "outside": [
            "compare_photographers",
            "describe_held_out",
            "narrow",
            "predict_held_out",
            "score_outside",
        ],
    },
)
