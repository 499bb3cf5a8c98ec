"""Text that others wrote, made safe to show: in a terminal, control characters move the cursor and change what it does.

There is one place for each way out: `StorageError.__str__` for errors, `escape_record` for what is logged,
`health.doctor` for its findings, and `rendering.console` for all that the command line prints. Values keep their text.
"""

import os
import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import LogRecord

#: Words that need no quotes, and those that mean themselves in double quotes, in cmd and in PowerShell.
_BARE, _HARMLESS = re.compile(r"[\w.:\\/=+-]+"), re.compile(r"[\w .:\\/=+<>~*@,;&()\[\]-]*")


def printable(text: str) -> str:
    """Return text in one line, with escapes for all characters that are not printable.

    >>> printable("a\\x1b[31m")
    'a\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """Return text that may have several lines, each made `printable`."""
    # For a long list, one look at all of it is a tenth of the time.
    return text if text.replace("\n", "").isprintable() else "\n".join(map(printable, text.split("\n")))


def shell_line(*words: str) -> str:
    """Join words to a line to paste into a shell, whatever others wrote into them.

    In single quotes, cmd runs what follows an ``&``; in double quotes, PowerShell runs what a ``$`` begins. On Windows,
    a word that is not safe in both is therefore left out, and three dots show where.
    """
    if os.name != "nt":
        return shlex.join(words)
    quoted = (f'"{word}"' if _HARMLESS.fullmatch(word) else "..." for word in words)
    return " ".join(word if _BARE.fullmatch(word) else other for word, other in zip(words, quoted))


def escape_record(record: "LogRecord") -> bool:
    """Make the message of a log record `printable`; to be added to a logger as a filter that keeps everything."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True
