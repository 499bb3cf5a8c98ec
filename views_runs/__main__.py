"""``python -m views_runs``: the same as ``views-runs``."""

from views_runs.cli import main

if __name__ == "__main__":
    main(prog_name="views-runs")
