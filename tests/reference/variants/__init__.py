"""Variants of published configs, compared with transformers.

    python -m tests.reference.variants

makes small models from every field of transformers' config classes, loads each with
`archdsl.from_pretrained`, and compares all outputs. A variant is equal, or refused with a
message, or transformers cannot compute it. `results.txt` records which; docs/zoo.md has sums.
"""
