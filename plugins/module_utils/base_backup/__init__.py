"""Base backups: one model and one contract for every engine, and one file for each engine."""
