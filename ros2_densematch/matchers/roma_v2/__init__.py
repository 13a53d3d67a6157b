"""RoMa v2: harder, better, faster, denser feature matching (Edstedt et al., 2025)."""
