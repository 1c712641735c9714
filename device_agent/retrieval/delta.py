"""Signed updates of a store: what has changed from one state to the next, applied as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

from device_agent.retrieval import delta_file
from device_agent.retrieval.delta_file import Delta, Header
from device_agent.retrieval.documents import FORMAT
from device_agent.retrieval.store import Store
from speculation.errors import DeltaBaseError, DeltaFormatError, DeltaReplayError, InvalidRequestError, StoreError


def make(old: Store, new: Store, key: Path, out: Path) -> tuple[Header, int, int]:
    """Write what leads from one store to another; its header, and how many documents come and go.

    Raises ``StoreError`` for stores that do not go together, ``InvalidRequestError`` where the new one is not newer.
    """
    new.check_model(old.facts.model_digest)
    if old.facts.cut != new.facts.cut:
        raise StoreError(f"{new.path} is cut otherwise than {old.path}: make it from a copy of that, by rag add and rag remove")
    if new.facts.revision <= old.facts.revision:
        raise InvalidRequestError(
            f"{new.path} has revision {new.facts.revision}, and {old.path} has {old.facts.revision}: devices take only what is"
            " newer, so change a copy of the old store"
        )
    before = {entry.name: entry.digest for entry in old.entries()}
    after = {entry.name: entry.digest for entry in new.entries()}
    added = [new.document(name) for name, digest in after.items() if before.get(name) != digest]
    removed = [name for name in before if name not in after]
    facts = new.facts
    header = Header(FORMAT, old.digest, new.digest, facts.revision, facts.model_digest, facts.dimension, 0, 0)
    return delta_file.write(out, header, added, removed, key), len(added), len(removed)


def apply(store: Store, delta: Delta) -> None:
    """Change an open store; all of the update, or nothing.

    Raises ``DeltaReplayError``, ``DeltaBaseError``, ``StoreError`` (another model's), ``DeltaFormatError`` where it does not
    lead to what it says.
    """
    header = delta.header
    store.check_model(header.model_digest)
    revision = store.facts.revision
    with store.change(header.counter):
        _check(store, header, revision)
        for name in delta.removed:
            store.take(name)
        for document in delta.added:
            store.put(document)
        if store.digest != header.new:
            raise DeltaFormatError(
                f"the delta leads to {store.digest[:12]}, and not to {header.new[:12]}, as it says: make it again"
            )


def _check(store: Store, header: Header, revision: int) -> None:
    if header.dimension != store.facts.dimension:
        raise DeltaFormatError(f"its vectors have {header.dimension} numbers, those of {store.path} {store.facts.dimension}")
    if header.counter <= revision:
        raise DeltaReplayError(
            f"the delta leads to revision {header.counter}, and {store.path} has {revision} already: get the newest"
        )
    found = store.digest
    if found != header.base:
        raise DeltaBaseError(
            f"the delta is for a store that is {header.base[:12]}, and {store.path} is {found[:12]}: get the one for that,"
            " and add documents of your own to another store"
        )
