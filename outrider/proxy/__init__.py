"""A TCP proxy that is as slow and as unreliable as a mobile network, and is told what to do while it runs."""
