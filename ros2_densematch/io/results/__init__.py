"""Where results go: a bag, a trajectory, a table of relative poses; each appears complete or not at all."""
