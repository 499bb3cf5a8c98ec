"""An open store: the file, and its models."""

import logging
import os
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

    A file that exists is opened when the block is entered. One that is to be created is not created before `open`: a model
    that cannot be pickled leaves no file. A `StorageError` that leaves the block gets the operation and the path, so that its message names both.

    Args:
        path: the file, as an absolute path.
        timeout: seconds to wait for a lock.
        operation: what it is opened for, as in ``fetch 'my-model'``.
        create: create the file if it does not exist.
        lenient: take a file that does not exist for an empty store, and log a warning; its folder must exist.
        is_default: this is the default store: its folder is created if need be, and it may be missing without a warning.
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
        #: Whether the file existed, and had content, when the block was entered.
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
        # A share that is not mounted is a missing folder: it must not read as an empty store.
        folder = Path(os.path.realpath(self.path)).parent
        if not self._is_default and schema.get_status(folder) is None:
            advice = "Check the path, and that the share is mounted"
            raise StoreNotFoundError("the folder does not exist", advice).locate(path=folder)
        if not self._create and not self._lenient:
            raise ModelNotFoundError("there is no store yet", "Check the path; the first model stored creates it")
        if self._lenient and not self._is_default:
            log.warning("%s does not exist yet: the first model stored creates it", self.path)

    def delete(self, reference: Reference) -> None:
        """Delete a model with all its versions, or one version, and give its space back.

        Raises:
            ModelNotFoundError: it does not exist.
        """
        self.models.delete(reference)
        try:
            uploads.clear_leftovers(self.connection)
            uploads.give_back(self.connection)
        except StorageError as error:
            # The models are gone; what is left of them is cleared by the next store or delete.
            log.warning("deleted %s, but could not give all its space back: %s", reference, error)
