"""What a loader could do wrong with a published checkpoint without a word.

`report` runs all checks. They use the readers of the other folders: what a reader refuses is a
finding too.
"""
