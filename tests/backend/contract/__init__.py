"""What `test_tinygrad_seam.py` checks of tinygrad, and the command that checks another one."""
