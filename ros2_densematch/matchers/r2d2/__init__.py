"""`r2d2`: repeatable and reliable key points of several scales."""
