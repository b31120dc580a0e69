"""Notebook 01: the table of nebulae; look-up by name, by place and by frame.

`table` finds a nebula, `names` gives every number one spelling (S155 is Sh2-155),
`place` says where on the sky a picture is, `frame` which nebulae are in it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "frame": ["read_frame"],
        "table": [
            "Nebula",
            "match_position",
            "read_catalogue",
            "read_conflicts",
            "resolve",
        ],
    },
)
