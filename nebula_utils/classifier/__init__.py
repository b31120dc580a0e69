"""Notebook 06: the exported classifier, its explanations, the page and its limits.

`classifier` loads the model and answers, `widget` is the page, `upload` takes pictures
in (how large, how many), `serving` limits visitors and memory, `rendering` and `texts`
say the answer, `review` looks at doubtful labels again.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["Classifier", "Result", "load_classifier"],
        "review": ["review_labels"],
        "widget": ["build_app"],
    },
)
