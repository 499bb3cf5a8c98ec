"""The store file: connections, tables, uploads, backup and verification."""
