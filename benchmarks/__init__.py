"""Speed as ratios, measured side by side in one run: `make bench`, `make bench ONLY=<domain>`.

Never part of a test. Each comparison runs both sides in turn on the same data and the same
server and keeps the best of each, so that a busy machine disturbs both alike.
"""
