"""Pickles: written, read, judged; nothing here knows of SQL."""
