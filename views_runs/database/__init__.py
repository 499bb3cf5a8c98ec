"""The file: connections, tables, uploads, backup, verification."""
