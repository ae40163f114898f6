"""Databases of teams: a document becomes an asset that applies it, and checks that see drift."""
