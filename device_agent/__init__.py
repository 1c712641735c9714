"""The device's service: drafts with a small model, shows at once, follows the verifier's word. ``agent.py`` is its centre."""
