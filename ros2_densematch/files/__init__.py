"""Files as such: written whole or not at all. Knows nothing of the rest; every other part may use it."""
