"""Every figure and table, metrics.json, and the model card.

Computing happens in the rooms above; what they return is drawn (`sky`, `charts`,
`changes`, `pictures`), tabulated (`tables`) and written (`results`, `model_card`) here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "changes": [
            "plot_confusion_grid",
            "plot_dose_response",
            "plot_flip_rates",
            "plot_group_recall",
        ],
        "charts": [
            "plot_composition",
            "plot_confusion",
            "plot_counts",
            "plot_embedding_map",
            "plot_learning_curves",
            "plot_recall",
            "plot_reliability",
            "plot_scores",
            "plot_split_comparison",
        ],
        "drawing": ["save_figure", "show"],
        "model_card": ["write_model_card"],
        "pictures": [
            "choose_examples",
            "choose_flips",
            "choose_free",
            "find_picture",
            "plot_dust_gallery",
            "plot_gallery",
            "plot_held_out",
            "plot_result",
            "plot_strips",
            "plot_views",
        ],
        "results": ["HEADS", "make_study", "write_metrics", "write_part"],
        "sky": [
            "plot_conflicts",
            "plot_coverage",
            "plot_finder",
            "plot_size_distribution",
            "plot_sky_map",
        ],
        "tables": [
            "format_score",
            "tabulate_comparison",
            "tabulate_explanations",
            "tabulate_flips",
            "tabulate_outside",
            "tabulate_scores",
        ],
    },
)
