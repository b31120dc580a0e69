"""The command line, papermill runs, sweeps, and where each number comes from."""
