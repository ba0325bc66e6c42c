"""What an editor shows of a spec, as plain data; `server.py` speaks its protocol.

The functions take a `Document` and a place in it. They know no protocol and no library of one.
"""
