"""From the untyped tree to the typed graph: names, numbers, types, and what they imply."""
