"""Diagnosis of a store and of the file system it is on."""
