"""From steps to a `Plan`: who gives what to whom, checked before anything runs.

A `_Maker` builds one block. It goes through the steps in their order and keeps an `Offer` for every field
that is there by then. What a step takes is looked up among them; what a block inside takes from outside
becomes an input of that block on the way. From the slots that a node reads follows what it waits for: the
nodes that give them, and, where it or one before it may have effects, all before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from dspex.errors import PipelineError, did_you_mean
from dspex.pipelines._conditions import Condition
from dspex.pipelines._faces import Face, Takes, face_of
from dspex.pipelines._offers import Given, Notes, Offer
from dspex.pipelines._plan import (
    ITEMS,
    Block,
    Choice,
    Does,
    Each,
    Inner,
    Leaf,
    Modifiers,
    Node,
    Pack,
    Plan,
    Rounds,
    Take,
    blocks_in,
    nodes_of,
)
from dspex.pipelines._steps import (
    NO_OPTIONS,
    Branch,
    Call,
    Chain,
    Loop,
    Map,
    Options,
    Parallel,
    Step,
    bad_step,
)
from dspex.pipelines._types import UNKNOWN, Record, fits, item_of, list_of, name_of, union_of

__all__ = ["compile_plan"]

_ANY: Final = Takes()


def compile_plan(
    steps: Sequence[Step],
    *,
    inputs: Mapping[str, Any] | None,
    outputs: Sequence[str] | None,
    strict: bool,
) -> Plan:
    """Check the steps and make a plan of them.

    Args:
        steps: In their order.
        inputs: What the pipeline takes, with types; None for what its first step takes.
        outputs: What it gives; None for what its last step gives.
        strict: Whether what looks wrong is an error.

    Raises:
        PipelineError: If they do not fit together; its code says how, its `step` where.
    """
    notes = Notes(strict)
    maker = _Maker(notes, "")
    if inputs is None:
        maker.opens = True
    else:
        for name, kind in inputs.items():
            maker.add_input(name, Takes(kind))
    last: Mapping[str, Offer] = {}
    flat = list(_flat(steps))
    for each in flat:
        last = maker.add(each)
        maker.opens = False
    given = _outputs(maker, last, outputs)
    notes.unused()
    block = maker.block([(name, offer.slot) for name, offer in given.items()])
    return Plan(
        block,
        dict(maker.declared),
        {name: offer.kind for name, offer in given.items()},
        tuple(notes.warnings),
    )


def _flat(steps: Iterable[Step]) -> Iterable[Step]:
    for each in steps:
        if isinstance(each, Chain) and each.options is NO_OPTIONS:
            yield from _flat(each.steps)
        else:
            yield each


def _outputs(maker: _Maker, last: Mapping[str, Offer], outputs: Sequence[str] | None) -> dict[str, Offer]:
    if outputs is None:
        given = {name: offer for name, offer in last.items() if not offer.only}
        if not given:
            raise PipelineError(
                "the last step gives nothing, so the pipeline would give nothing",
                code="no-outputs",
                hint=f"write outputs=[...] with some of: {_listed(maker.offers)}",
            )
    else:
        given = {}
        for name in outputs:
            offer = maker.offers.get(name)
            if offer is None:
                raise PipelineError(
                    f"the pipeline is to give {name!r}, and no step gives it",
                    code="unknown-output",
                    hint=f"{did_you_mean(name, maker.offers)}there are: {_listed(maker.offers)}",
                    offered=sorted(maker.offers),
                )
            if offer.only:
                raise PipelineError(
                    f"the pipeline is to give {name!r}, which is there only {offer.only}",
                    code="maybe-missing",
                    hint="let the other branch give it too, or give it a value before",
                    step=offer.by,
                )
            given[name] = offer
    for offer in given.values():
        offer.use()
    return given


class _Maker:
    """Builds one block.

    Args:
        notes: What is noticed.
        path: What stands before the names of its nodes in their paths.
        parent: The maker of the block around it.
        beside: Whether its nodes run side by side and see nothing of each other.
    """

    def __init__(
        self, notes: Notes, path: str, parent: _Maker | None = None, *, beside: bool = False
    ) -> None:
        self.notes, self.path, self.parent, self.beside = notes, path, parent, beside
        self.offers: dict[str, Offer] = {}
        self.written: dict[str, Offer] = {}
        self.inputs: dict[str, int] = {}
        self.own: set[str] = set()
        self.declared: dict[str, Takes] = {}
        self.opens = False
        self._nodes: list[Node] = []
        self._names: dict[str, int] = {}
        self._givers: dict[int, int] = {}
        self._size = 0
        self._barrier: int | None = None

    # -- fields -------------------------------------------------------------------------------------

    def add_input(self, name: str, takes: Takes) -> Offer:
        """An input of this block that nothing outside gives by itself."""
        self.declared[name] = takes
        self.own.add(name)
        return self._input(name, Offer(name, takes.kind, self._slot()))

    def _input(self, name: str, offer: Offer) -> Offer:
        self.offers[name] = offer
        self.inputs[name] = offer.slot
        return offer

    def _slot(self) -> int:
        self._size += 1
        return self._size - 1

    def find(self, name: str) -> Offer | None:
        """The field of this name, taken in from outside if it is there."""
        offer = self.offers.get(name)
        if offer is not None or self.parent is None:
            return offer
        outer = self.parent.find(name)
        if outer is None:
            return None
        inside = (outer,)
        return self._input(
            name, Offer(name, outer.kind, self._slot(), outer.by, only=outer.only, inside=inside)
        )

    def seen(self) -> dict[str, Offer]:
        """All fields that a step here could take."""
        outer = {} if self.parent is None else self.parent.seen()
        return {**outer, **self.offers}

    def _top(self) -> _Maker:
        return self if self.parent is None else self.parent._top()

    def need(self, source: str, takes: Takes, name: str, at: str) -> Take | None:
        """An input of the step `at`: the field `source` as its `name`; None if it is missing and may be."""
        first, *parts = [source] if self.find(source) else source.split(".")
        offer = self.find(first)
        top = self._top()
        if offer is None and top.opens and not parts:
            top.add_input(source, takes)
            offer = self.find(source)
        if offer is None:
            if not takes.required:
                return None
            self._missing(source, name, at)
        if offer.only:
            if not takes.required:
                return None
            raise PipelineError(
                f"{at} takes {source!r}, which is there only {offer.only}",
                code="maybe-missing",
                hint="let the other branch give it too, or give it a value before",
                step=at,
                offered=sorted(self.seen()),
            )
        kind = self._part(offer.kind, first, parts, at)
        self._check(kind, takes, source, name, at, offer.by)
        offer.use()
        return Take(name, offer.slot, tuple(parts))

    def _part(self, kind: Any, name: str, parts: Sequence[str], at: str) -> Any:
        for part in parts:
            if isinstance(kind, Record):
                if part not in kind.fields:
                    raise PipelineError(
                        f"{at} takes {part!r} of {name!r}, which has no such field",
                        code="missing-input",
                        hint=f"{did_you_mean(part, kind.fields)}it has: {', '.join(kind.fields)}",
                        step=at,
                        offered=sorted(kind.fields),
                    )
                kind = kind.fields[part]
            else:
                kind = UNKNOWN
            name = f"{name}.{part}"
        return kind

    def _check(self, given: Any, takes: Takes, source: str, name: str, at: str, by: str) -> None:
        answer = fits(given, takes.kind)
        if answer:
            return
        whose = f"from {by}" if by else "an input of the pipeline"
        taken = f"{name!r}" if name != source else "it"
        if answer is None and not by:
            top = self._top()
            if source in top.declared:  # an input that was declared by its name alone
                top.declared[source] = top.declared[source]._replace(kind=takes.kind)
            return
        if answer is None:
            self.notes.warn(
                PipelineError(
                    f"nobody knows whether {source!r} ({name_of(given)}, {whose}) is {name_of(takes.kind)}",
                    code="unknown-type",
                    hint=f"declare what {by} gives",
                    step=at,
                )
            )
            return
        message = f"{source!r} is {name_of(given)} ({whose}), and {at} takes {taken} as {name_of(takes.kind)}"
        hint = f"declare it there, {name}: {name_of(given)}, or put a step between them that converts it"
        clash = PipelineError(message, code="type-clash", hint=hint, step=at)
        if takes.strict:
            raise clash
        self.notes.warn(clash)

    def _missing(self, source: str, name: str, at: str) -> NoReturn:
        seen = self.seen()
        taken = f"{source!r} as its {name!r}" if name != source else repr(source)
        raise PipelineError(
            f"{at} takes {taken}, and no step before it gives that",
            code="missing-input",
            hint=f"{did_you_mean(source, seen)}there are: {_listed(seen)}; "
            f'rename one with inputs={{"{name}": ...}}, or add it to the pipeline with inputs=[...]',
            step=at,
            offered=sorted(seen),
        )

    # -- nodes --------------------------------------------------------------------------------------

    def add(self, step: Step, key: str | None = None) -> dict[str, Offer]:
        """Add a step; returns what it gives."""
        if isinstance(step, Chain) and step.options is NO_OPTIONS and not self.beside:
            last: dict[str, Offer] = {}
            for each in step.steps:
                last = self.add(each)
            return last
        name = self._name(step, key)
        node, given = self._node(step, name, key)
        slots = {field: self._slot() for field in given}
        node.gives = tuple((each.source, slots[field]) for field, each in given.items())
        node.modifiers = self._modifiers(step.options, node, name, given, slots)
        self._place(node, pure=step.options.pure)
        offers = {
            field: Offer(
                field,
                each.kind,
                slots[field],
                node.path,
                aside=each.aside,
                only=each.only,
                inside=each.inside,
            )
            for field, each in given.items()
        }
        self.notes.offers += offers.values()
        if not self.beside:
            self.offers.update(offers)
            self.written.update(offers)
        return offers

    def _name(self, step: Step, key: str | None) -> str:
        wanted = step.options.name or key or _own_name(step)
        name, number = wanted, self._names.get(wanted, 0) + 1
        while name in self._names:
            name = f"{wanted}_{number}"
            number += 1
        if name != wanted and step.options.name is not None:
            raise bad_step(
                f"two steps are named {wanted!r}", "name them apart: their paths are what runs are resumed by"
            )
        self._names[wanted] = max(number - 1, 1)
        self._names.setdefault(name, 1)
        return name

    def _node(self, step: Step, name: str, key: str | None) -> tuple[Node, dict[str, Given]]:
        """The node of a step, and what it gives, by the names that it has in this block."""
        path = self.path + name
        does, takes, given = self._parts(step, path, key)
        given = _named(given, step, path)
        return Node(name, does, tuple(takes), (), path=path), given

    def _parts(self, step: Step, path: str, key: str | None) -> tuple[Does, list[Take], dict[str, Given]]:
        if isinstance(step, Call):
            return self._call(step, path, key)
        if step.options.inputs is not None or step.options.thread is not None:
            what = "inputs" if step.options.inputs is not None else "thread"
            raise bad_step(
                f"{what}= is for modules and functions", f"give it to the steps inside {path}", path
            )
        if isinstance(step, Chain):
            return self._chain(step, path)
        if isinstance(step, Parallel):
            return self._parallel(step, path, key)
        if isinstance(step, Branch):
            return self._branch(step, path)
        if isinstance(step, Map):
            return self._map(step, path)
        assert isinstance(step, Loop)  # noqa: S101 - there are no other kinds
        return self._loop(step, path)

    def _place(self, node: Node, *, pure: bool) -> None:
        """Say what the node waits for."""
        number = len(self._nodes)
        node.waits_for_all = not pure and not _is_independent(node)
        takes = list(node.takes)
        if node.modifiers is not None:
            for stand_in in node.modifiers.fallback:
                takes += stand_in.takes
        after = {self._givers[take.slot] for take in takes if take.slot in self._givers}
        if not self.beside:
            # Before the barrier all have ended when it has, so nobody needs to wait for those by itself.
            if self._barrier is not None:
                after = {self._barrier, *(each for each in after if each > self._barrier)}
            if node.waits_for_all:
                after.update(range(0 if self._barrier is None else self._barrier + 1, number))
        node.after = frozenset(after)
        if node.waits_for_all:
            self._barrier = number
        for _, slot in node.gives:
            self._givers[slot] = number
        self._nodes.append(node)

    def block(self, outputs: Iterable[tuple[str, int | Pack]]) -> Block:
        """The block, finished."""
        followers: dict[int, list[int]] = {}
        for number, node in enumerate(self._nodes):
            for before in node.after:
                followers.setdefault(before, []).append(number)
        for number, node in enumerate(self._nodes):
            node.followers = tuple(followers.get(number, ()))
        numbered = list(enumerate(self._nodes))
        return Block(
            nodes=tuple(self._nodes),
            size=self._size,
            inputs=tuple(self.inputs.items()),
            outputs=tuple(outputs),
            is_chain=all(number - 1 in node.after for number, node in numbered[1:]),
            first=tuple(number for number, node in numbered if not node.after),
        )

    def _inside(self, path: str, *, beside: bool = False) -> _Maker:
        return _Maker(self.notes, path, self, beside=beside)

    def _captured(self, *inside: _Maker) -> list[Take]:
        """What blocks inside take from this one."""
        names = dict.fromkeys(name for maker in inside for name in maker.inputs if name not in maker.own)
        found = [(name, self.find(name)) for name in names]
        return [Take(name, offer.slot) for name, offer in found if offer is not None]

    # -- kinds of steps -----------------------------------------------------------------------------

    def _call(self, step: Call, path: str, key: str | None) -> tuple[Does, list[Take], dict[str, Given]]:
        options = step.options
        face = face_of(step.target, thread=options.thread)
        if options.thread is not None and face.how not in ("thread", "inline"):
            raise bad_step("thread= is for functions that are not async", "leave it out", path)
        takes = self._takes(face, options.inputs or {}, path)
        plan: Plan | None = getattr(step.target, "plan", None) if face.is_module else None
        if plan is not None and (own := step.target.own_options):  # type: ignore[attr-defined]
            raise bad_step(
                f"{path} is a pipeline with {', '.join(own)} of its own, and a step could not keep to that",
                "give timeout= to the step, dspex.step(inner, timeout=5), the rest to the pipeline around it",
                path,
            )
        leaf, given = _leaf(step, face, path, key)
        does: Does = leaf if plan is None else Inner(plan.block, "pipeline")
        return does, takes, given

    def _takes(self, face: Face, renamed: Mapping[str, str], path: str) -> list[Take]:
        for name in renamed:
            if name not in face.inputs and not face.open:
                raise PipelineError(
                    f"{path} has no input {name!r}",
                    code="unknown-input",
                    hint=f"{did_you_mean(name, face.inputs)}it has: {_listed(face.inputs)}",
                    step=path,
                )
        if face.open and face.is_module and not face.inputs and not renamed:
            raise PipelineError(
                f"{path} does not say what it takes",
                code="no-inputs",
                hint='say it: dspex.step(module, inputs=["question"], outputs=["answer"])',
                step=path,
            )
        found = []
        for name, takes in {**dict.fromkeys(renamed, _ANY), **face.inputs}.items():
            if name in renamed:
                takes = takes._replace(required=True)
            found.append(self.need(renamed.get(name, name), takes, name, path))
        return [take for take in found if take is not None]

    def _chain(self, step: Chain, path: str) -> tuple[Does, list[Take], dict[str, Given]]:
        inside = self._inside(f"{path}/")
        for each in step.steps:
            last = inside.add(each)
        given = inside.written if step.options.outputs or step.options.renames or not self.beside else last
        block = inside.block([(name, offer.slot) for name, offer in given.items()])
        return Inner(block, "chain"), self._captured(inside), _exported(given)

    def _parallel(
        self, step: Parallel, path: str, key: str | None
    ) -> tuple[Does, list[Take], dict[str, Given]]:
        inside = self._inside(f"{path}/", beside=True)
        outputs: dict[str, int | Pack] = {}
        given: dict[str, Given] = {}
        writers: dict[str, str] = {}
        for name, branch in step.branches:
            offers = inside.add(branch, name)
            if name is not None:
                offers = {field: offer for field, offer in offers.items() if not offer.only}
                where, kind = _under_key(offers)
                new: dict[str, tuple[int | Pack, Given]] = {
                    name: (where, Given(kind, inside=tuple(offers.values())))
                }
            else:
                new = {
                    field: (offer.slot, Given(offer.kind, offer.aside, offer.only, (offer,)))
                    for field, offer in offers.items()
                }
            for offer in offers.values():
                offer.exported = True
            by = inside._nodes[-1].path
            for field, (where, each) in new.items():
                if field in given:
                    if each.aside:
                        continue
                    if not given[field].aside:
                        raise PipelineError(
                            f"{writers[field]} and {by} run side by side and both give {field!r}",
                            code="two-writers",
                            hint=f"give one another name, outputs={{{field!r}: ...}}, or the branches keys",
                            step=path,
                        )
                outputs[field], given[field], writers[field] = where, each, by
        block = inside.block(outputs.items())
        takes = self._captured(inside)
        if step.reduce is None:
            return Inner(block, "parallel"), takes, given
        return self._reduced(step, block, takes, given, path, key)

    def _reduced(
        self,
        step: Parallel,
        block: Block,
        takes: list[Take],
        given: Mapping[str, Given],
        path: str,
        key: str | None,
    ) -> tuple[Does, list[Take], dict[str, Given]]:
        assert step.reduce is not None  # noqa: S101 - asked before
        face = face_of(step.reduce, thread=step.options.thread)
        call = Call(target=step.reduce, options=Options(outputs=step.options.outputs))
        leaf, made = _leaf(call, face, f"{path}/reduce", key)
        for name, takes_it in face.inputs.items():
            if name not in given and takes_it.required:
                raise PipelineError(
                    f"{path}/reduce takes {name!r}, and no branch gives that",
                    code="missing-input",
                    hint=f"{did_you_mean(name, given)}the branches give: {_listed(given)}",
                    step=f"{path}/reduce",
                    offered=sorted(given),
                )
        spread = not face.inputs
        taken = given if spread or face.open else [name for name in given if name in face.inputs]
        for name in taken:
            for offer in given[name].inside:
                offer.use()
        return Inner(block, "parallel", leaf, spread), takes, made

    def _condition(self, condition: Condition, at: str) -> list[Take]:
        """What a condition of a step in this block takes."""
        found = [
            self.need(name, Takes(required=name in condition.needed), name, at) for name in condition.names
        ]
        return [take for take in found if take is not None]

    def _branch(self, step: Branch, path: str) -> tuple[Does, list[Take], dict[str, Given]]:
        condition = step.condition
        if isinstance(condition, bool) or condition.is_constant:
            text = condition if isinstance(condition, bool) else condition.text
            raise PipelineError(
                f"the condition {text!s} of {path} comes out one way whatever the fields are, so one branch "
                "can never be reached",
                code="unreachable",
                hint="let the condition name a field, or leave the branch out",
                step=path,
            )
        asked = self._condition(condition, f"{path}/condition")
        then, otherwise = self._inside(f"{path}/then/"), self._inside(f"{path}/otherwise/")
        then.add(step.then)
        if step.otherwise is not None:
            otherwise.add(step.otherwise)
        given: dict[str, Given] = {}
        passed = []
        for name in {**then.written, **otherwise.written}:
            sides = [maker.written.get(name) for maker in (then, otherwise)]
            offers = tuple(offer for offer in sides if offer is not None)
            kinds, only = [offer.kind for offer in offers], ""
            aside = all(offer.aside for offer in offers)
            if len(offers) < 2:
                before = self.find(name)
                if before is not None and not before.only:
                    passed.append(name)
                    kinds.append(before.kind)
                    before.use()
                else:
                    only = f"where the condition of {path} {'holds' if sides[0] else 'does not hold'}"
            for offer in offers:
                offer.exported = True
            given[name] = Given(union_of(kinds), aside, only, offers)
        blocks = [
            maker.block([(name, offer.slot) for name, offer in maker.written.items()])
            for maker in (then, otherwise)
        ]
        takes = _merged(asked, self._captured(then, otherwise), self._passed(passed))
        asks = tuple(take.name for take in asked)
        does = Choice(
            condition, asks, blocks[0], None if step.otherwise is None else blocks[1], tuple(passed)
        )
        return does, takes, given

    def _passed(self, names: Iterable[str]) -> list[Take]:
        found = [(name, self.find(name)) for name in names]
        return [Take(name, offer.slot) for name, offer in found if offer is not None]

    def _map(self, step: Map, path: str) -> tuple[Does, list[Take], dict[str, Given]]:
        over = self.need(step.over, _ANY, ITEMS, path)
        assert over is not None  # noqa: S101 - it is required
        first = self.find(step.over) or self.find(step.over.partition(".")[0])
        assert first is not None  # noqa: S101 - it has been found
        kind = self._part(first.kind, step.over, over.parts, path)
        item, is_list = item_of(kind)
        if not is_list:
            raise PipelineError(
                f"{path} goes over {step.over!r}, which is {name_of(kind)} and no list",
                code="not-a-list",
                hint="give over= a field that is a list",
                step=path,
            )
        inside = self._inside(f"{path}[]/")
        inside.add_input(step.item, Takes(item))
        each = inside.offers[step.item]  # the step may give a field of that name
        inside.add(step.step)
        if not each.used:
            raise PipelineError(
                f"{path} gives each item of {step.over!r} as {step.item!r}, and its step does not take that",
                code="missing-input",
                hint=f'say what the step calls it: item="{_first_taken(step.step) or "doc"}"',
                step=path,
            )
        given = {
            name: Given(list_of(offer.kind), offer.aside, "", (offer,))
            for name, offer in inside.written.items()
            if not offer.only
        }
        for name in given:
            inside.written[name].exported = True
        block = inside.block([(name, inside.written[name].slot) for name in given])
        does = Each(block, step.item, step.concurrency)
        return does, [over, *self._captured(inside)], given

    def _loop(self, step: Loop, path: str) -> tuple[Does, list[Take], dict[str, Given]]:
        if step.until.is_constant:
            raise PipelineError(
                f"the condition {step.until.text} of {path} comes out one way whatever the fields are",
                code="unreachable",
                hint="let the condition name a field",
                step=path,
            )
        inside = self._inside(f"{path}[]/")
        inside.add(step.step)
        # What a round gives, the next one takes in the place of what was there before.
        carried = tuple(
            name for name in inside.written if name in inside.inputs and not inside.written[name].only
        )
        for name in carried:
            offer, before = inside.written[name], self.find(name)
            if before is not None:
                self._check(offer.kind, Takes(before.kind), name, name, path, offer.by)
            offer.use()
        asks = [take.name for take in inside._condition(step.until, f"{path}/until")]
        given = {
            name: Given(offer.kind, offer.aside, offer.only, (offer,))
            for name, offer in inside.written.items()
        }
        for name in given:
            inside.written[name].exported = True
        block = inside.block([(name, offer.slot) for name, offer in inside.written.items()])
        does = Rounds(block, step.until, tuple(asks), step.at_most, carried)
        return does, self._captured(inside), given

    # -- modifiers ----------------------------------------------------------------------------------

    def _modifiers(
        self,
        options: Options,
        node: Node,
        name: str,
        given: Mapping[str, Given],
        slots: Mapping[str, int],
    ) -> Modifiers | None:
        if not options.modified:
            return None
        if options.timeout is not None and (stuck := _in_thread(node)):
            what = "" if stuck == node.path else f"{stuck} "
            raise PipelineError(
                f"{node.path} has a timeout, and {what}runs in a thread, which cannot be stopped",
                code="timeout-in-thread",
                hint="make the function async, run it in a worker by dspex.remote, or leave the timeout out",
                step=node.path,
            )
        stand_ins = []
        for number, step in enumerate(options.fallback):
            part = f"{name}/fallback" if number == 0 else f"{name}/fallback_{number + 1}"
            # Its one value, if it has no name, is what the step before it gives.
            stand_in, offered = self._node(step, part, next(iter(given), None))
            for field, each in given.items():
                if field not in offered or offered[field].only:
                    if each.aside:
                        continue
                    raise PipelineError(
                        f"{node.path} gives {field!r}, and what stands in for it, {stand_in.path}, does not",
                        code="fallback-outputs",
                        hint=f"it gives: {_listed(offered)}; rename one with outputs={{...: {field!r}}}",
                        step=stand_in.path,
                    )
                self._check(offered[field].kind, Takes(each.kind), field, field, node.path, stand_in.path)
                for offer in offered[field].inside:
                    offer.use()
            stand_in.gives = tuple(
                (offered[field].source, slot) for field, slot in slots.items() if field in offered
            )
            stand_in.modifiers = self._modifiers(step.options, stand_in, part, offered, slots)
            stand_ins.append(stand_in)
        return Modifiers(options.cache, tuple(stand_ins), options.retry, options.timeout)


# -- what steps give --------------------------------------------------------------------------------


def _leaf(step: Call, face: Face, path: str, key: str | None) -> tuple[Leaf, dict[str, Given]]:
    """The call, and what it gives by its own names."""
    wanted = step.options.outputs
    if face.outputs is not None:
        fields = tuple(face.outputs)
        given = {name: Given(face.outputs[name], name in face.asides) for name in fields}
        return Leaf(step.target, face, None, fields), given
    if wanted is not None and (len(wanted) > 1 or face.is_module):
        return Leaf(step.target, face, None, wanted), dict.fromkeys(wanted, Given(UNKNOWN))
    name = wanted[0] if wanted else key
    if name is None:
        raise PipelineError(
            f"{path} gives one value without a name"
            if not face.is_module
            else f"{path} does not say what it gives",
            code="no-outputs",
            hint='name it: dspex.step(function, outputs="docs"); a function with no result says `-> None`',
            step=path,
        )
    return Leaf(step.target, face, name, ()), {name: Given(face.value)}


def _named(given: dict[str, Given], step: Step, path: str) -> dict[str, Given]:
    """What a step gives, by the names and to the extent that its options say."""
    wanted, renames = step.options.outputs, step.options.renames
    for name in (*(wanted or ()), *(renames or ())):
        if name not in given:
            raise PipelineError(
                f"{path} does not give {name!r}",
                code="unknown-output",
                hint=f"{did_you_mean(name, given)}it gives: {_listed(given)}",
                step=path,
            )
    kept = given if wanted is None else {name: given[name] for name in wanted}
    return {(renames or {}).get(name, name): each._replace(source=name) for name, each in kept.items()}


def _exported(offers: Mapping[str, Offer]) -> dict[str, Given]:
    for offer in offers.values():
        offer.exported = True
    return {name: Given(offer.kind, offer.aside, offer.only, (offer,)) for name, offer in offers.items()}


def _under_key(offers: Mapping[str, Offer]) -> tuple[int | Pack, Any]:
    """What a branch gives under its key: the value of its one field, or a record."""
    fields = [offer for offer in offers.values() if not offer.aside]
    if len(fields) == 1:
        return fields[0].slot, fields[0].kind
    return (
        Pack(tuple((name, offer.slot) for name, offer in offers.items())),
        Record({name: offer.kind for name, offer in offers.items()}),
    )


def _merged(*takes: Iterable[Take]) -> list[Take]:
    return list({take.name: take for several in takes for take in several}.values())


# -- small questions --------------------------------------------------------------------------------


def _own_name(step: Step) -> str:
    if not isinstance(step, Call):
        return step.kind
    if step.options.renames:
        return next(iter(step.options.renames.values()))
    if step.options.outputs:
        return step.options.outputs[0]
    name = getattr(step.target, "name", None)
    if isinstance(name, str) and name and hasattr(step.target, "plan"):
        return name
    face = face_of(step.target, thread=step.options.thread)
    own = [field for field in face.outputs or () if field not in face.asides]
    return own[0] if face.is_module and own else face.name


def _is_independent(node: Node) -> bool:
    """Whether a node may run beside others: it asks models, and has no effects."""
    if isinstance(node.does, Leaf):
        free = node.does.face.is_module
    else:
        free = all(not inside.waits_for_all for block in blocks_in(node) for inside in block.nodes)
    stand_ins = () if node.modifiers is None else node.modifiers.fallback
    return free and all(_is_independent(stand_in) for stand_in in stand_ins)


def _in_thread(node: Node) -> str:
    """The path of what a node runs in a thread; empty for nothing."""
    nodes = [node, *(inside for block in blocks_in(node) for inside in nodes_of(block))]
    for each in nodes:
        if isinstance(each.does, Leaf) and each.does.face.how == "thread":
            return each.path
        if isinstance(each.does, Inner) and each.does.reduce and each.does.reduce.face.how == "thread":
            return f"{each.path}/reduce"
    return ""


def _first_taken(step: Step) -> str:
    if isinstance(step, Call):
        return next(iter(face_of(step.target, thread=None).inputs), "")
    return ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
