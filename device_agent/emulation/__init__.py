"""What the agent plays, and how that is changed while it runs."""
