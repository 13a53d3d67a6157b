"""Tiny RoMa v1: RoMa's coarse and fine matching on the XFeat backbone."""
