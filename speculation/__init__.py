"""The shared library: the choice, the protocol, the wire, engines, links and shaping."""
