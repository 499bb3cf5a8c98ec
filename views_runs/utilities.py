"""1.x had this module; importing it says that it is gone."""

raise ImportError("views_runs 2 has no module views_runs.utilities; see `views-runs model guide migrating`")
