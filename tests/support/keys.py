"""Files of keys for tests: alice and bob, with limits as given."""

from __future__ import annotations

from pathlib import Path

ALICE, BOB = "alice-alice-alice-alice", "bob-bob-bob-bob-bob-bob"
WRONG = "sesame-sesame-sesame"


def key_file(folder: Path, **limits: object) -> Path:
    """Limits are alice's."""
    path = folder / "keys.toml"
    told = "".join(f"{name} = {value}\n" for name, value in limits.items())
    path.write_text(f'[[keys]]\ntenant = "alice"\nkey = "{ALICE}"\n{told}\n[[keys]]\ntenant = "bob"\nkey = "{BOB}"\n')
    path.chmod(0o600)
    return path
