"""Users of the wire, as Locust runs them: devices that draft as an agent does, and those who abuse a verifier."""

from __future__ import annotations

import gevent
import grpc
from locust import task

from loadtest import abuse
from loadtest.answers import NO_DRAFTS, Times
from loadtest.asking import Request
from loadtest.conversation import Conversation
from loadtest.drafts import Drafter, Nonsense
from loadtest.scenario import Abuse
from loadtest.users import CUT, NO_END, Person
from loadtest.wire import Call, Wire, status_of
from speculation.errors import ProtocolError


class _OnTheWire(Person):
    """Whoever calls a verifier."""

    abstract = True

    def on_start(self) -> None:
        super().on_start()
        self.wire = Wire(self.world.verifier, self.key)

    def on_stop(self) -> None:
        super().on_stop()
        self.wire.close()

    def call(self, messages: list[bytes]) -> Call:
        return self.wire.call(messages, self.world.scenario.answer_limit_s)

    def talk(self, conversation: Conversation, cut_at: int | None = None) -> str:
        """One stream of a conversation, to its end, which is empty where all is well, or to the cut."""
        call = self.call(conversation.opening())
        try:
            for data in call:
                call.send(conversation.receive(data, self.world.now_s()))
                if cut_at is not None and conversation.times.num_tokens >= cut_at and not conversation.is_finished:
                    return CUT
        except grpc.RpcError as error:
            return status_of(error)
        except ProtocolError as error:
            return str(error)
        finally:
            call.close()
        return "" if conversation.is_finished else NO_END

    def conversation(self, request: Request, drafter: Drafter, ahead: int) -> Conversation:
        return Conversation(self.world.library.session(request), drafter, ahead, self.world.now_s())


class Device(_OnTheWire):
    """A device agent as a verifier sees it, with drafts that cost nothing; may lose the connection and resume."""

    abstract = True

    @task
    def ask(self) -> None:
        request = self.world.request(self.group)
        talk = self.conversation(request, self.world.library.drafter(request), self.group.drafts_ahead)
        with self.asked(talk.times):
            how = self.talk(talk, self.cut_at())
            if is_cut := how == CUT:
                if not self.comes_back():
                    self.left(talk.times)
                    return
                how = self.talk(talk)
            how = how or self.text_fault(request, request.token_ids, talk.generated)
            self.ended(talk.times, how, talk.drafts, is_cut)


class Abuser(_OnTheWire):
    """Breaks the rules of the wire, or takes all that they leave open."""

    abstract = True

    @task
    def ask(self) -> None:
        match self.group.abuse:
            case Abuse.SESSIONS:
                gevent.joinall([gevent.spawn(self._insist) for _ in range(abuse.NUM_SESSIONS)])
            case Abuse.DRAFTS:
                self._draft_on()
            case Abuse.MALFORMED:
                request = self.world.request(self.group)
                self._say(abuse.malformed(self.world.library, request, self.world.number()))
            case Abuse.OVERSIZED:
                self._say(abuse.oversized(self._conversation().opening()))
            case Abuse.DEAF:
                self._never_read()

    def _conversation(self) -> Conversation:
        drafter = Nonsense(self.world.library.vocabulary_size, self.world.chance)
        return self.conversation(self.world.request(self.group), drafter, abuse.ALL_CREDIT)

    def _insist(self) -> None:
        """A session, and another try after each refusal, whatever it said of when to come again."""
        for _ in range(abuse.NUM_TRIES):
            if not self._draft_on():
                return
            gevent.sleep(abuse.RETRY_S)

    def _draft_on(self) -> str:
        """All the drafts that the verifier bears, to the end, which is empty where nothing was refused."""
        talk = self._conversation()
        with self.asked(talk.times):
            how = self.talk(talk)
            self.ended(talk.times, how, talk.drafts)
            return how

    def _say(self, messages: list[bytes]) -> None:
        """Messages, and then only listening."""
        times = Times(self.world.now_s())
        with self.asked(times):
            call = self.call(messages)
            try:
                for _ in call:
                    pass
                how = "OK"
            except grpc.RpcError as error:
                how = status_of(error)
            finally:
                call.close()
            self.ended(times, how, NO_DRAFTS)

    def _never_read(self) -> None:
        talk = self._conversation()
        with self.asked(talk.times):
            call = self.call(talk.opening())
            gevent.sleep(abuse.DEAF_S)
            call.close()
            self.left(talk.times)
