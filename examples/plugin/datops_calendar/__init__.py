"""A sample plug-in of datops: the source kind `calendar` and the step `classify`."""
