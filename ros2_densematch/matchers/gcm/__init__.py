"""`gcm`, the default matcher: GCM's coarse-to-fine idea with networks that we trained, for 3-D scenes and speed."""
