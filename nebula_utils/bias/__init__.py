"""Notebook 05: what a head looks at, and how it does on pictures from elsewhere.

`flips` counts which answers a change of colour or framing flips; `dust_response` asks
about more and more dust; `measures` tells where the evidence lies and how much colour
an answer takes; `outside` judges on other people's pictures.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dust_response": ["measure_dust_response"],
        "flips": [
            "compare_photographers",
            "list_flips",
            "narrow",
            "predict_nebulae",
        ],
        "measures": ["measure_flip_distances", "measure_localisation"],
        "outside": [
            "describe_held_out",
            "load_outside",
            "predict_held_out",
            "predict_outside",
            "score_outside",
        ],
    },
)
