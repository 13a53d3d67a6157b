"""`ncnet`: matches from a dense 4-D correlation that a consensus network has filtered."""
