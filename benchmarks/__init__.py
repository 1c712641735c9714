"""One file per question; each prints the table that a page of the documentation shows."""
