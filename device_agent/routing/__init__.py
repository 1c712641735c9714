"""Who thinks: in mode ``auto`` a small policy decides between the device, both together, and the cloud."""
