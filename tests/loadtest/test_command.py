"""``python -m loadtest``: the users' process ends with the command, however it ends."""

import signal

import pytest

from loadtest import __main__ as front


class Users:
    """A process whose waiting is interrupted so many times."""

    def __init__(self, interrupts):
        self.interrupts, self.told = interrupts, []

    def wait(self):
        if self.interrupts:
            self.interrupts -= 1
            raise KeyboardInterrupt
        return 0

    def send_signal(self, number):
        self.told.append(number)

    def kill(self):
        self.told.append(signal.SIGKILL)


@pytest.fixture
def users(monkeypatch):
    def made(interrupts):
        process = Users(interrupts)
        monkeypatch.setattr(front.subprocess, "Popen", lambda command, **options: process)
        return process

    return made


def test_an_interrupt_lets_the_users_stop_in_order(users):
    process = users(1)
    assert front._locust(None, "h:1", {}, []) == front.INTERRUPTED
    assert process.told[0] is signal.SIGINT


def test_a_second_interrupt_leaves_no_users_behind(users):
    process = users(2)
    with pytest.raises(KeyboardInterrupt):
        front._locust(None, "h:1", {}, [])
    assert process.told == [signal.SIGINT, signal.SIGKILL]
