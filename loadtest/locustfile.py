"""What Locust loads: the users of one scenario, its shape, and the report at the end; see README.md beside this file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import gevent
import grpc.experimental.gevent
from locust import LoadTestShape, User, events

# Locust loads this file by its path, and its command does not look where it was started.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from loadtest import report, scenario
from loadtest.answers import TICK_S
from loadtest.devices import Abuser, Device
from loadtest.scenario import Group, Kind
from loadtest.users import Person, Reader
from loadtest.world import World
from speculation.errors import OutriderError

grpc.experimental.gevent.init_gevent()

CLASSES: dict[Kind, type[Person]] = {Kind.READER: Reader, Kind.DEVICE: Device, Kind.ABUSER: Abuser}


@events.init_command_line_parser.add_listener
def _add_flags(parser: Any) -> None:
    parser.add_argument("--scenario", default="steady", metavar="NAME|FILE", help="What happens.")
    parser.add_argument("--verifier", default="", metavar="HOST:PORT", help="Where devices call; none come without it.")
    parser.add_argument("--report", default="load-report", metavar="DIR", help="Where the report goes.")
    parser.add_argument("--key-file", default="", metavar="FILE", help="The key of the users, where services want one.")
    parser.add_argument("--abuser-key-file", default="", metavar="FILE", help="The key of the abusers.")
    parser.add_argument("--stretch-to", type=float, default=0, metavar="S", help="The same scenario in so many seconds.")
    parser.add_argument("--most-users", type=int, default=0, metavar="N", help="The same scenario with so many users.")


@events.init.add_listener
def _set_up(environment: Any, **_: Any) -> None:
    # Its table is long, and lies in its own files.
    logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
    try:
        world = _world(environment.parsed_options)
    except OutriderError as error:
        # Locust would log any other error, and go on.
        raise SystemExit(f"loadtest: error: {error}") from error
    environment.shape_class.stages = world.scenario.stages
    environment.user_classes = [_class(group, world, environment.host) for group in world.scenario.groups]
    environment.stop_timeout = world.scenario.stop_limit_s
    environment.world = world


@events.test_start.add_listener
def _watch(environment: Any, **_: Any) -> None:
    environment.runner.greenlet.spawn(_tick, environment.world)


@events.quitting.add_listener
def _conclude(environment: Any, **_: Any) -> None:
    world = environment.world
    environment.process_exit_code = report.publish(world.scenario, world.ledger, Path(environment.parsed_options.report))


def _tick(world: World) -> None:
    """Until it is killed: tell the ledger that this process is alive."""
    while True:
        world.ledger.ticked(world.now_s())
        gevent.sleep(TICK_S)


def _world(options: Any) -> World:
    told = scenario.load(options.scenario).scaled(options.stretch_to or None, options.most_users or None)
    told = told.reaching(has_agent=bool(options.host), has_verifier=bool(options.verifier))
    files = {"users": options.key_file, "abusers": options.abuser_key_file or options.key_file}
    return World.of(told, options.verifier, {tenant: Path(file) for tenant, file in files.items() if file})


def _class(group: Group, world: World, host: str) -> type[Person]:
    """A class of Locust's for the users of one group."""
    fields = {"group": group, "world": world, "weight": group.weight, "host": host, "abstract": False}
    return type(group.name, (CLASSES[group.kind],), fields)


class Placeholder(User):
    """Locust wants a class before the scenario is known; nobody is ever of it."""


class Shape(LoadTestShape):
    """As many users as the scenario's stage says."""

    stages: tuple[scenario.Stage, ...] = ()

    def tick(self) -> tuple[int, float] | None:
        stage = scenario.stage_at(self.stages, self.get_run_time())
        return None if stage is None else (stage.users, stage.spawn_per_s)
