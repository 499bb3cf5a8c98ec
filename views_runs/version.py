"""The version, apart from everything else so that packaging can read it without an import."""

__version__ = "2.1.0"
