"""An open store: a connection and the models."""

import logging
import os
import stat
from pathlib import Path
from types import TracebackType

from views_runs.database import schema, uploads
from views_runs.database.connection import Connection
from views_runs.database.models import Models
from views_runs.exceptions import ModelNotFoundError, StorageError, StoreNotFoundError
from views_runs.records import Reference

log = logging.getLogger("views_runs")


class Database:
    """A store that is open for one operation; use it as a context manager.

    A file that exists is opened when the block is entered. A new file is created by `open`, so that a model that cannot
    be pickled does not leave an empty file. The operation and the path are added to any `StorageError` that leaves the
    block, so that the message names both.

    Args:
        path: the file, as an absolute path.
        timeout: seconds to wait for a lock.
        operation: the operation, as in ``fetch 'my-model'``.
        create: create the file if it does not exist.
        lenient: treat a missing file as an empty store, and log a warning; the folder must exist.
        is_default: this is the default store: its folder is created if necessary, and no warning is logged.
    """

    #: Known when the store is open.
    connection: Connection
    models: Models

    def __init__(
        self,
        path: Path,
        timeout: float,
        operation: str,
        *,
        create: bool = False,
        lenient: bool = False,
        is_default: bool = False,
    ) -> None:
        self.path = path
        self.operation = operation
        self._timeout = timeout
        self._create = create
        self._lenient = lenient
        self._is_default = is_default
        #: Whether the file existed, and whether it was non-empty, when the block was entered.
        self.exists = self.has_content = False
        self.is_open = False

    def __enter__(self) -> "Database":
        try:
            status = schema.get_status(self.path)
            self.exists = status is not None
            self.has_content = status is not None and status.st_size > 0
            if not self.exists:
                self._handle_missing()
            elif self.has_content or not self._create:
                self.open()
        except StorageError as error:
            error.locate(self.operation, self.path)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open:
            self.connection.close()
        if isinstance(error, StorageError):
            error.locate(self.operation, self.path)

    def open(self) -> None:
        """Open the file, and create it if need be, unless it is open.

        Raises:
            StorageError: the file cannot be opened, or is not a store.
        """
        if self.is_open:
            return
        if self._create and self._is_default:
            schema.create_folder(self.path.parent)
        self.connection = schema.connect(self.path, self._timeout, self._create)
        self.models = Models(self.connection)
        self.is_open = True

    def _handle_missing(self) -> None:
        # A missing folder may be a share that is not mounted, which must not be mistaken for an empty store.
        folder = Path(os.path.realpath(self.path)).parent
        status = schema.get_status(folder)
        if not self._is_default and (status is None or not stat.S_ISDIR(status.st_mode)):
            advice = "Check the path, and that the share is mounted"
            raise StoreNotFoundError("the folder does not exist", advice).locate(path=folder)
        if not self._create and not self._lenient:
            raise ModelNotFoundError("the store does not exist yet", "Check the path; storing a model creates the file")
        if self._lenient and not self._is_default:
            log.warning("%s does not exist yet; storing a model creates it", self.path)

    def delete(self, reference: Reference) -> None:
        """Delete a model with all its versions, or one version, and return the space to the disk.

        Raises:
            ModelNotFoundError: the model does not exist.
        """
        self.models.delete(reference)
        try:
            uploads.clear_leftovers(self.connection)
            uploads.give_back(self.connection)
        except StorageError as error:
            # The models are gone; the next store or delete removes what is left of them.
            log.warning("deleted %s, but could not return all its space to the disk: %s", reference, error)
