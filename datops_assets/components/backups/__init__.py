"""Backups: a document becomes assets with checks, and what the commands work on."""
