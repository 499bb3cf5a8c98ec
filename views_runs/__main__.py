"""``python -m views_runs``: the same as ``viewser``."""

from views_runs.cli import main

if __name__ == "__main__":
    main(prog_name="viewser")
