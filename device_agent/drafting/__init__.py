"""What the device drafts: branches behind the final log, the caches they stand in, and the policies that say which grow."""
