"""DKM v3: dense kernelized feature matching (Edstedt et al., CVPR 2023)."""
