"""Notebook 04: heads, cross-validation, scores with intervals, certainty, export.

`heads` predict; `fitting` embeds what they are fitted on, after a recipe; `study`
cross-validates; `scores` weighs nebulae alike; `calibration` says when to be sure;
`export` writes what the classifier room loads; `finetune` trains the network itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": [
            "SURE",
            "compute_threshold",
            "list_doubtful",
            "read_certainty",
            "score_coverage",
        ],
        "comparison": ["compare_with_keras", "probe", "share_neighbours"],
        "export": ["export_classifier"],
        "finetune": ["fine_tune"],
        "fitting": ["Recipe", "embed", "fit_head", "make_training"],
        "heads": ["LinearHead", "TwoStepHead", "load_head"],
        "scores": ["Predictions", "compare_heads", "score_head"],
        "study": [
            "ABLATION",
            "BALANCED",
            "FRAMINGS",
            "PLAIN",
            "RECIPES",
            "ROBUST",
            "Study",
            "make_splits",
            "run_study",
        ],
    },
)
