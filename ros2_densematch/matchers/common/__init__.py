"""What several matchers share: images, nearest neighbours, local maps, patch alignment, precision, and four families.

`dense/` is the frame of DKM and RoMa, `pyramid/` that of DFM and GCM as published, `parametric/` that of CNNGeometric
and weak alignment, `consensus/` what NCNet and Sparse-NCNet have in common.
"""
