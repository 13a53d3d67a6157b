"""Network blocks that the matchers share. State-dict keys equal the published ones where a published network exists."""
