"""The packages that scripts and models of 1.x need; only the extra `views` installs them, and little imports them."""

import sys
from importlib import import_module
from typing import Any

from views_runs import signals

#: The distribution of each module, and what `pip install` is given for it; as in setup.cfg, under `views`.
REQUIREMENTS = {
    "stepshift": ("stepshift", "stepshift>=2.2.1,<3"),
    "views_partitioning": ("views-partitioning", "views-partitioning>=3,<4"),
    "views_schema": ("views-schema", "views-schema>=2.3,<3"),
}

#: They need pandas below 2. Its wheels need this, which their own requirements do not say, and a Python below 3.12.
NUMPY = "numpy<2"

#: Never `views_runs[views]`: on PyPI, that name is 1.14, which would replace this package.
COMMAND = " ".join(["pip install", *(f"'{text}'" for text in (NUMPY, *(line for _, line in REQUIREMENTS.values())))])

WHERE = "This needs pandas below 2, and so Python 3.11; `views-runs model guide migrating` covers newer versions"


def can_be_installed() -> bool:
    """Return whether there are wheels of what they need for this Python."""
    return sys.version_info < (3, 12)


def supplies(module: str) -> bool:
    """Return whether the extra installs a module."""
    return module.partition(".")[0] in REQUIREMENTS


def require(needed_by: str) -> None:
    """Import all that scripts and models of 1.x use of the extra; raises what `load` raises."""
    for module in ("stepshift.views", "views_partitioning.data_partitioner", "views_schema"):
        load(module, needed_by)


def load(module: str, needed_by: str) -> Any:
    """Import a module of the extra, and return it.

    Raises:
        ImportError: it is not installed, or cannot be imported; the message has the command that installs it.
    """
    try:
        return import_module(module)
    except Exception as error:
        signals.let_through(error)
        # Not only an ImportError: a pandas below 2 beside a numpy 2 raises a ValueError.
        advice = f"Try: {COMMAND}" if can_be_installed() else f"{WHERE}. On Python 3.11, try: {COMMAND}"
        trouble = f"{needed_by} needs {module}, which cannot be imported: {error}"
        raise ImportError(f"{trouble}. {advice}", name=module) from error
