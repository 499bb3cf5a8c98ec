"""Diagnose a store and the file system it is on."""
