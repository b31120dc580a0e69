"""The command line, papermill runs, and where each number comes from.

`cli` and `commands` are the command ``nebula`` (`answers`: what it tells of pictures),
`pipeline` runs the notebooks, `provenance` remembers what they read and wrote.
"""
