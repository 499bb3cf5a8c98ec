"""Text that others wrote, made safe to show: in a terminal, control characters move the cursor and change what it does.

There is one place for each way out: `StorageError.__str__` for errors, `escape_record` for what is logged,
`health.doctor` for its findings, and `rendering.console` for all that the command line prints. Values keep their text.
"""

from logging import LogRecord


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


def escape_record(record: LogRecord) -> bool:
    """Make the message of a log record `printable`; to be added to a logger as a filter that keeps everything."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True
