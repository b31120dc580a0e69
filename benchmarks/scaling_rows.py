"""Rows about many pictures: memory flat, time linear."""

from collections.abc import Collection

from bench_scaling import GOAL_MEMORY, GOAL_TIME, SIZES, measure_scaling
from measuring import Options, Row, judge

FULL = 630  # photos; with fewer, there are fewer pictures here, too


def measure(options: Options, names: Collection[str]) -> list[Row]:
    """Measure each size once: a large one takes longer than all rounds of others."""
    share = min(1, options.n_photos / FULL)
    few, many = measure_scaling([max(2, round(size * share)) for size in SIZES])
    work = f"`nebula extract` of {many.n_images:,} small pictures, one run"
    less = f"{few.n_images:,} pictures"
    return [
        judge(
            f"{work}: largest memory",
            "none",
            lambda: many.peak,
            GOAL_MEMORY,
            "MB",
            0,
            at_most=True,
        ),
        judge(f"{work}: largest memory", less, lambda: many.peak / few.peak, digits=2),
        judge(
            f"{work}: time a picture",
            less,
            lambda: (many.seconds / many.n_images) / (few.seconds / few.n_images),
            GOAL_TIME,
            digits=2,
            at_most=True,
        ),
    ]
