"""Backups: taken, kept, held against what was written, and restored to prove it.

Belongs here: dumps and base backups, their encryption, destinations, catalogue, retention, restores and drills.
Does not: Dagster (components), the environment (config), the server of the warehouse itself (resources).
"""
