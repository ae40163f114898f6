"""A sample plug-in of datops: one plug-in of each group."""
