"""Load on running services, from outside: readers over REST, devices that speak the wire protocol, and those who abuse both."""
