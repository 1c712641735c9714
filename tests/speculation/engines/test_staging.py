"""What is written under another name first goes away with the process that writes it, however that is asked to end."""

import signal
import subprocess
import sys

import pytest

WRITES = """
import os, signal, sys
from pathlib import Path
from speculation.engines.staging import staged_files, staged_folder
place = Path(sys.argv[2])
with (staged_folder(place / "made") if sys.argv[1] == "folder" else staged_files(place, "last")) as folder:
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGTERM)
    (folder / "last").write_text("the rest")
"""


@pytest.mark.parametrize("kind", ["folder", "files"])
def test_a_process_that_is_asked_to_end_leaves_nothing_half_written(tmp_path, kind):
    ended = subprocess.run([sys.executable, "-c", WRITES, kind, tmp_path], check=False)
    assert ended.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
