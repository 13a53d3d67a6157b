"""The matchers: `base.py` is the contract, `registry.py` the list, one module or folder per system."""
