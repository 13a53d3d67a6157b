"""`cnngeometric`: one parametric transformation between two images, regressed from their correlation."""
