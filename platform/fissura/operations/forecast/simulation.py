"""Simulates a search: slots, a driver that does one thing at a time, nodes that fail.

Events happen in the order of their times. The driver suggests trials and processes results one after the
other, so that many short trials wait for it. No Ray, no clock: time is a number.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from fissura.core.errors import SpecError
from fissura.core.spec import Spec
from fissura.operations.forecast.learning_curves import Course
from fissura.spaces.halving import Halving

MOST_LOSSES = 50
"""The number of lost nodes for each trial and epoch after which a simulation is given up."""


class Costs(Spec):
    """What a search costs beside its epochs, in seconds.

    `begin`: until the first trial can be asked for; `data`: preparing the images, once at the driver and once
    on each further node; `node`: until a node is up, at first and after a failure; `actor`: a process that
    imports PyTorch, one a slot; `first`: a trial's first epoch beyond its others; `suggest`: the searcher's
    time for a trial, which grows by `suggest_growth` with each trial known, up to `suggest_bound` trials;
    `trial`: the driver's other time for a trial; `result`: its time for an epoch's result; `finish`: the best
    runs on the test images, leaderboard, report.
    """

    begin: float = 4.0
    data: float = 0.0
    node: float = 0.0
    actor: float = 5.0
    first: float = 0.0
    suggest: float = 0.02
    suggest_growth: float = 0.0
    suggest_bound: int = 1000
    trial: float = 0.03
    result: float = 0.02
    finish: float = 6.0


@dataclass(frozen=True)
class Machines:
    """The nodes of a cluster: `losses` is how often one is lost, an hour; `spread` the standard deviation of
    the logarithm of an epoch's time within a trial."""

    nodes: int
    concurrent: int
    losses: float = 0.0
    spread: float = 0.0


@dataclass
class Played:
    """The result of one simulated search; times in seconds."""

    seconds: float = 0.0
    epochs: int = 0
    epochs_lost: int = 0
    stopped: int = 0
    node_losses: int = 0
    training: float = 0.0
    driver: float = 0.0
    suggesting: float = 0.0


NOTHING = Course(0.0, 0, (0.0,))


@dataclass
class _Slot:
    """A slot for one trial; `life` counts the epochs begun in it, to recognise a lost epoch's event."""

    node: int
    life: int = 0
    fresh: bool = True
    busy: bool = False
    number: int = -1
    epoch: int = 0
    course: Course = NOTHING


@dataclass
class Simulation:
    """One search of `trials` trials with the learning curves `course_of(number)`; `rule` is ASHA's, or None
    if each trial runs to its end, as the first, the paper's own, always does."""

    trials: int
    epochs: int
    machines: Machines
    costs: Costs
    course_of: Callable[[int], Course]
    rule: Halving | None
    random: Random
    played: Played = field(default_factory=Played)

    def play(self) -> Played:
        """Simulates the search to its end."""
        machines, costs = self.machines, self.costs
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = self._asked = self._ended = 0
        self._driver_free = self._last = costs.begin + costs.data
        self._slots = [_Slot(number % machines.nodes) for number in range(machines.concurrent)]
        here = costs.begin + costs.data + costs.node
        up = [here, *(here + costs.data for _ in range(machines.nodes - 1))]
        for slot in self._slots:
            self._at(up[slot.node], self._ask(slot))
        if machines.losses:
            for node in range(machines.nodes):
                self._at(up[node] + self._until_loss(), self._lose(node))
        while self._ended < self.trials:
            now, _, event = heapq.heappop(self._events)
            event(now)
        self.played.seconds = self._last + costs.finish
        return self.played

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, self._count, event))
        self._count += 1

    def _drive(self, now: float, seconds: float) -> float:
        """The time at which the driver finishes work of `seconds` that is requested now."""
        self._driver_free = max(now, self._driver_free) + seconds
        self.played.driver += seconds
        return self._driver_free

    def _ask(self, slot: _Slot) -> Callable[[float], None]:
        def event(now: float) -> None:
            if self._asked == self.trials:
                return
            costs, slot.number = self.costs, self._asked
            self._asked += 1
            seconds = costs.suggest + costs.suggest_growth * min(slot.number, costs.suggest_bound)
            self.played.suggesting += seconds
            seconds += costs.trial
            slot.course, slot.epoch, slot.busy = self.course_of(slot.number), 0, True
            self._train(slot, self._drive(now, seconds))

        return event

    def _train(self, slot: _Slot, now: float) -> None:
        """Begins an epoch."""
        slot.life += 1
        life, spread = slot.life, self.machines.spread
        begins = now + (self.costs.actor if slot.fresh else 0.0)
        seconds = slot.course.seconds
        if spread:
            seconds *= math.exp(self.random.gauss(-spread * spread / 2, spread))
        if slot.epoch == 0 or slot.fresh:
            seconds += self.costs.first
        slot.fresh = False

        def event(then: float) -> None:
            if slot.life == life:
                self.played.training += seconds
                self._result(slot, then)

        self._at(begins + seconds, event)

    def _result(self, slot: _Slot, now: float) -> None:
        """Processes an epoch's result: stops or continues the trial."""
        course = slot.course
        slot.epoch += 1
        self.played.epochs += 1
        then = self._drive(now, self.costs.result)
        value = course.value(slot.epoch)
        over = slot.epoch >= min(course.epochs, self.epochs)
        behind = self.rule is not None and self.rule.falls_behind(
            slot.number, epoch=slot.epoch, value=value, phase=course.phase
        )
        if over or (behind and slot.number > 0):
            self.played.stopped += not over
            self._ended += 1
            self._last = max(self._last, then)
            slot.busy = False
            self._ask(slot)(then)
        else:
            self._train(slot, then)

    def _until_loss(self) -> float:
        return self.random.expovariate(self.machines.losses / 3600)

    def _lose(self, node: int) -> Callable[[float], None]:
        """Loses a node: its epochs in flight are lost; its trials resume from the last epoch on its
        replacement."""

        def event(now: float) -> None:
            self.played.node_losses += 1
            if self.played.node_losses > MOST_LOSSES * self.trials * self.epochs:
                raise SpecError(
                    f"--failures, --preemptions: at {self.machines.losses:g} an hour a node is lost before"
                    " it has done an epoch, again and again, and the search has no end; give a lower rate"
                )
            back = now + self.costs.node + self.costs.data
            for slot in self._slots:
                if slot.node == node and slot.busy:
                    self.played.epochs_lost += 1
                    slot.fresh = True
                    self._train(slot, back)
            self._at(back + self._until_loss(), self._lose(node))

        return event
