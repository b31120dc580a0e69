"""Notebook 02: which pictures there are, which can be used, and how they are split.

`manifest` asks the sources (`stellarium`, `photos`, `archives`, `hips`) for their
pictures as one table; `screening` finds what can't be used and who is whose copy;
`splits` keeps a nebula on one side; `composition` tells what colour gives away.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "archives": ["fetch_archives", "load_archives"],
        "composition": [
            "compute_association",
            "compute_cramers_v",
            "tabulate_composition",
            "tabulate_photographers",
        ],
        "hips": ["fetch_cutouts", "load_hips", "make_plan"],
        "manifest": [
            "Dataset",
            "list_left_out",
            "load_dataset",
            "load_source",
            "make_dataset",
            "screen_source",
        ],
        "photos": ["load_everyday", "load_photos"],
        "screening": ["find_duplicates", "find_unseen", "screen"],
        "splits": [
            "check_leakage",
            "make_groups",
            "random_kfold",
            "repeated_group_kfold",
        ],
        "stellarium": ["fetch_textures", "load_stellarium"],
    },
)
