"""Many answers on one phone: what it promises them, who waits for a place, pauses, and groups."""
