"""Notebook 03: frozen networks, views of a picture, and its embeddings.

`backbone` loads a network and `engines` runs it (`weights` is where it comes from);
`views` makes a network's input of a picture, `augmentation` many for training;
`extraction` embeds pictures once and keeps that in a `store`, `cluster` does so on many
machines.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmentation": ["DustyCrops", "RandomCrops", "SimulatedScenes"],
        "backbone": [
            "MOBILENETS",
            "DEFAULT_BACKBONE",
            "Backbone",
            "load_backbone",
            "prepare_backbone",
            "resolve_backbone",
        ],
        "extraction": [
            "embed_views",
            "extract_features",
            "extract_simulated",
            "extract_to_npz",
            "list_pictures",
        ],
        "fidelity": ["compute_fidelity", "make_batch"],
        "views": ["Preprocessing", "View", "apply_first"],
        "weights": ["fetch_frozen_graph"],
    },
)
