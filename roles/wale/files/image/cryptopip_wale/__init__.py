"""Base backups and the WAL archive: between PostgreSQL 17 and WAL-E 1.1.1, which knows only PostgreSQL 14 and older."""
