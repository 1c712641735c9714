"""What a distillation remembers of itself in its work folder, so that it goes on as it began."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from speculation.errors import InvalidRequestError, PackageError

pytest.importorskip("torch", reason="the training framework is an extra")

from outrider.training import request
from outrider.training.request import Job, check, remember


@pytest.fixture
def job(tmp_path):
    return Job(full=tmp_path / "full", out=tmp_path / "made", work=tmp_path / "run", data=(), shape=(32, 64, 1, 2, 1))


def test_a_full_disk_leaves_no_half_of_what_the_run_is(job, monkeypatch):
    def full(path, value):
        path.write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(request, "write_json", full)
    with pytest.raises(PackageError, match=r"run\.json could not be written: .*No space left"):
        remember(job, {})
    assert list(job.work.iterdir()) == []
    monkeypatch.undo()
    remember(job, {})
    assert [path.name for path in job.work.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", [b"", b'{"rows": ', b"[1]", b"\xff"])
def test_what_the_run_is_may_be_damaged(job, content):
    job.work.mkdir()
    (job.work / "run.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"run\.json .*name another folder \(--work\)"):
        remember(job, {})


@pytest.mark.parametrize("work", ["made", "made/run", "run/../made/run"])
def test_a_work_folder_inside_of_what_is_put_in_place_at_the_end_is_refused_at_once(job, tmp_path, work):
    with pytest.raises(InvalidRequestError, match="name a folder beside it"):
        check(replace(job, data=(tmp_path / "a.txt",), work=tmp_path / work))
    check(replace(job, data=(tmp_path / "a.txt",), work=tmp_path / "made.run"))


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_learned(job, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    with pytest.raises(InvalidRequestError, match=r"--plot /proc/a\.png cannot be written"):
        check(replace(job, data=(tmp_path / "a.txt",), plot=Path("/proc/a.png")))
