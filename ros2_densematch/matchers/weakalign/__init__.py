"""`weakalign`: an affine and a thin-plate-spline stage, trained by the soft inlier count."""
