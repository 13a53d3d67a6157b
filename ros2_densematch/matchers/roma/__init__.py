"""RoMa: robust dense feature matching (Edstedt et al., CVPR 2024)."""
