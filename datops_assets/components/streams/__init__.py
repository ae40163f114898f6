"""Streams: a document becomes the assets, the check and the sensor of a database that is followed."""
