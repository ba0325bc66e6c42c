"""The playground: a page that checks, draws and counts a spec while one types.

`inspect.py` answers the page's questions, in a browser (Pyodide) or in a server. It imports
neither numpy nor tinygrad.
"""
