"""Notebook 06: the exported classifier, its explanations, the page and its limits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["Classifier", "Result", "load_classifier"],
        "review": ["review_labels"],
        "widget": ["build_app"],
    },
)
