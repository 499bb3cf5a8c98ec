"""Stand-ins for what `Storage` is about to offer: call it directly then, and delete this module."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from views_runs.records import Damage
    from views_runs.storage import Storage


def reported(method: Callable[..., Any], on_damage: Callable[["Damage"], object]) -> dict[str, Any]:
    """Return the argument `on_damage` for a method that takes it: pass it directly instead."""
    return {"on_damage": on_damage} if "on_damage" in inspect.signature(method).parameters else {}


def exists_file(storage: "Storage") -> bool:
    """Whether there is a file at the path of a store: `Storage.exists_file`."""
    method = getattr(storage, "exists_file", storage.path.exists)
    return bool(method())
