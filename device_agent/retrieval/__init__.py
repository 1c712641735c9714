"""Retrieval on the device: a store of documents, what of it may leave, and signed updates. Needs the extra ``rag``."""
