"""Notebook 03: frozen networks, views of a picture, and its embeddings.

`backbone` loads a network and `engines` runs it (`weights` is where it comes from);
`views` makes a network's input of a picture, `augmentation` many for training;
`extraction` embeds pictures once and stores that, `survey` whole folders, here or on
many machines; `evidence` joins a network's feature maps over a whole picture.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmentation": ["DustyCrops", "RandomCrops", "ZoomedOut"],
        "backbone": [
            "DEFAULT_BACKBONE",
            "MOBILENETS",
            "Backbone",
            "compute_fidelity",
            "load_backbone",
            "resolve_backbone",
        ],
        "engines": ["list_engines"],
        "extraction": ["embed_views", "extract_features"],
        "survey": ["extract_to_npz", "list_pictures"],
        "views": ["Preprocessing", "View", "apply_first", "make_batch"],
    },
)
