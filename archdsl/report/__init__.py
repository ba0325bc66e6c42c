"""A report on a model: what is known of it as data, and one page of HTML that shows it.

`data.py` collects what other rooms know, `measured.py` measures, `plot.py` draws curves and
`page.py` writes the page; none of them computes a cost.
"""
