"""The SQL that this process executes on a store's file, seen before SQLite gets it."""

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def watched(path: Path, before: Callable[[sqlite3.Connection, str], object]) -> Iterator[None]:
    """Call a function before each statement that this process executes on a file.

    What the function itself executes is not watched, nor is reading a BLOB without SQL.

    Args:
        path: the file.
        before: called with the connection and the statement.
    """
    connect = sqlite3.connect
    told = False

    def tell(connection: sqlite3.Connection, sql: str) -> None:
        nonlocal told
        if not told:
            told = True
            try:
                before(connection, sql)
            finally:
                told = False

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            tell(self.connection, sql)
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, rows: Iterable[Any]) -> sqlite3.Cursor:
            for row in rows:
                self.execute(sql, row)
            return self

        def executescript(self, script: str) -> sqlite3.Cursor:
            tell(self.connection, script)
            return super().executescript(script)

    class Connection(sqlite3.Connection):
        def cursor(self, *arguments: Any) -> Any:
            return super().cursor(Cursor)

        def execute(self, *arguments: Any) -> Any:
            return self.cursor().execute(*arguments)

        def executemany(self, *arguments: Any) -> Any:
            return self.cursor().executemany(*arguments)

        def executescript(self, *arguments: Any) -> Any:
            return self.cursor().executescript(*arguments)

    def watching(database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        is_this = str(database).partition("?")[0].endswith(f"/{path.name}")
        return connect(database, *arguments, **{**options, "factory": Connection} if is_this else options)

    sqlite3.connect = watching
    try:
        yield
    finally:
        sqlite3.connect = connect


def between(action: Callable[[], object]) -> Callable[[sqlite3.Connection, str], None]:
    """Return what calls a function before each new statement outside of a transaction, where others may write too.

    A statement that is executed again is not new, so that who reads rows until there are no more comes to an end.
    """
    seen: set[str] = set()

    def before(connection: sqlite3.Connection, sql: str) -> None:
        if not connection.in_transaction and sql not in seen:
            seen.add(sql)
            action()

    return before


def moments(path: Path, action: Callable[[], object]) -> Iterator[AbstractContextManager[None]]:
    """Yield contexts for one operation each, in which a function is called at one moment when others may write.

    In the first context that is before the first statement outside of a transaction, in the second before the second,
    and so on until there are no more.
    """
    for moment in itertools.count(1):
        reached = 0

        def before(connection: sqlite3.Connection, sql: str) -> None:
            nonlocal reached
            if not connection.in_transaction:
                reached += 1
                if reached == moment:
                    action()

        yield watched(path, before)
        if reached < moment:
            return
