"""Notebook 02: which pictures there are, which can be used, and how they are split.

`manifest` asks the sources (`stellarium`, `photos`, `download`, `hips`) for their
pictures as one table, and tells what their colour gives away; `screening` finds what
can't be used and who is whose copy; `splits` keeps a nebula on one side.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "download": ["fetch_archives", "load_archives"],
        "hips": ["fetch_cutouts", "load_hips", "make_plan"],
        "manifest": [
            "Dataset",
            "compute_association",
            "compute_cramers_v",
            "list_left_out",
            "load_dataset",
            "load_source",
            "make_dataset",
            "screen_source",
            "tabulate_composition",
            "tabulate_photographers",
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
