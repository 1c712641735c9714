"""What the collector looks at in a process that serves."""

import subprocess
import sys

PROBE = """
import gc, weakref
from speculation.heap import freeze_heap

class Node:
    pass

def ring():
    one, other = Node(), Node()
    one.other, other.other = other, one
    return weakref.ref(one)

gc.disable()
before = ring()
many = [Node() for _ in range(100_000)]
freeze_heap()
after = ring()
print(before() is None, len(gc.get_objects()) < 1_000, gc.get_freeze_count() > 100_000, after() is None)
gc.collect()
print(after() is None, len(many))
"""


def test_what_is_there_is_out_of_sight_but_for_garbage_and_what_comes_later_is_collected():
    found = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True", "True", "False", "True", "100000"]
