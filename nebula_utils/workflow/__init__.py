"""The command line, papermill runs, and where each number comes from.

`cli` and `commands` are the command ``nebula`` (`answers`: what it tells of nebulae and
pictures); `pipeline` runs the notebooks, `parameters` checks what they are given, and
`provenance` remembers what they read and wrote.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "parameters": ["assign_parameters", "read_parameters"],
        "pipeline": ["find_notebooks", "plan_run", "run_steps"],
        "provenance": ["describe_git", "write_provenance"],
    },
)
