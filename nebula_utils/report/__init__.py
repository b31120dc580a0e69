"""Every figure and table, metrics.json, and the model card.

Computing happens in the rooms above; what they return is drawn (`sky`, `charts`,
`pictures`), tabulated (`tables`) and written (`results`) here.
"""

import lazy_loader

_OFFERED = {
    "charts": "plot_composition plot_confusion_grid plot_counts plot_dose_response "
    "plot_embedding_map plot_flip_rates plot_group_recall plot_learning_curves "
    "plot_recall plot_reliability plot_split_comparison",
    "drawing": "HEADS save_figure show",
    "pictures": "choose_examples choose_flips choose_free find_picture "
    "choose_outcomes plot_dust_gallery plot_frame plot_gallery plot_held_out "
    "plot_result plot_strips plot_views",
    "results": "make_study write_metrics write_model_card write_part",
    "sky": "plot_conflicts plot_coverage plot_size_distribution plot_sky_map",
    "tables": "format_score tabulate_comparison tabulate_explanations tabulate_flips "
    "tabulate_outside tabulate_scores",
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={module: names.split() for module, names in _OFFERED.items()},
)
