"""Matchers of others behind our contract, so that they are measured by the same protocol. None of them is part of the
product: the package and its tests run without them."""
