"""Other engines behind one interface, for ``benchmarks/shootout.py``. A module imports its library only when one is made."""
