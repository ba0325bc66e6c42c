"""Figures: typed graph -> tree (fold) -> shapes with coordinates (layout) -> file (writers).

`structure.py` has the nodes of the tree and `drawing.py` the shapes. Writers take no decisions
about places: `svg.py`, `tikz.py`, `page.py` (HTML) and `raster.py` (PNG and PDF).

`attention_maps.py` draws what a model computes.
"""
