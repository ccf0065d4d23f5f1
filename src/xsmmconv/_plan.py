"""Plans: a problem and a pass, turned into a program for one of the two engines.

A plan holds no arrays, never changes, and may be executed by many threads at once.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from xsmmconv import _dispatch, _memory
from xsmmconv._blocking import (
    THREAD_WORK,
    CorrelateShape,
    Machine,
    ceil_div,
)
from xsmmconv._blocking_batch import batch_blocking, batch_is_better
from xsmmconv._blocking_correlate import correlate_blocking, multiply_pairs, phases_as_filters
from xsmmconv._blocking_depthwise import (
    channels_in_lanes,
    depthwise_blocking,
    depthwise_weight_blocking,
)
from xsmmconv._blocking_filter import FilterShape, filter_blocking, filters_are_better
from xsmmconv._blocking_fold import FoldShape, fold_blocking, fold_is_better
from xsmmconv._blocking_rows import RowShape, loads, row_blocking, rows_are_better
from xsmmconv._blocking_unfolded import (
    UnfoldedShape,
    few_positions,
    places,
    unfolded_blocking,
    unfolded_is_better,
)
from xsmmconv._blocking_weight import WeightShape, lanes_from, weight_blocking
from xsmmconv._blocking_windows import windows_in_lanes, windows_of
from xsmmconv._errors import UnsupportedError
from xsmmconv._geometry import (
    backward_data_phases,
    forward_phases,
    valid_pairs,
    walk,
    weight_phases,
)
from xsmmconv._lower_correlate import lower_correlate
from xsmmconv._lower_filter import lower_filter
from xsmmconv._lower_fold import lower_fold
from xsmmconv._lower_rows import lower_rows
from xsmmconv._lower_weight import lower_weight
from xsmmconv._problem import ConvProblem
from xsmmconv._row_lengths import may_depend_on

# dtype -> (code of the packing routines, bytes stored, bytes computed, type of the kernels)
_DTYPES = {
    "float32": (0, 4, 4, "float32"),
    "float64": (1, 8, 8, "float64"),
    "bfloat16": (2, 2, 4, "float32"),
}
# Channels in the lanes are no matrix product: these take the place of kernels.
_ROUTINES = {"float32 depthwise": 0, "float64 depthwise": 1, "bfloat16 depthwise": 3}
PASSES = ("forward", "backward_data", "backward_weight")
_CACHED_PLANS = 1024
# A plan writes down every tap, block of channels and tile of a border; so many take minutes.
_MOST_STEPS = 2**28
_CALL = 64  # steps that a call of a kernel counts as, beside the entries of its list

_cache: OrderedDict = OrderedDict()
_lock = threading.Lock()


def _renew_lock():
    # Another thread may have held it at the fork; in the child nobody would ever release it.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def machine(dtype: str) -> Machine:
    """What the instruction set and the caches of this machine allow for a dtype."""
    kernels = _DTYPES[dtype][3]
    return Machine(
        _dispatch.instruction_set(),
        _dispatch.vector_bytes(),
        _dispatch.overlapping_operands(kernels),
        dtype == "bfloat16" and _dispatch.bf16_kernels(),
        _dispatch.halved_vectors(),
        _dispatch.amd_vectors(),
        # More of L1 gained nothing on Zen 5; choices for a smaller L2 have not been measured.
        min(2**15, _dispatch.cache_bytes(1)),
        max(2**20, _dispatch.cache_bytes(2)),
    )


def _kernel(kind, m, n, k, lda, ldb, ldc, beta, ahead=False):
    if kind in _ROUTINES:
        from xsmmconv._correlate import products

        return products(_ROUTINES[kind], k, beta)
    return _dispatch.dispatch_gemm(m, n, k, lda, ldb, ldc, kind, beta, ahead)


class Plan:
    """How one pass of one problem is computed. Made by `xsmmconv.plan`.

    Attributes
    ----------
    pass_ : str
        "forward", "backward_data" or "backward_weight".
    problem : ConvProblem
        The sizes, described from the forward side.
    multiply_adds : int
        N * K * C/groups * E, with E the number of (position, tap) pairs that touch the input; no
        product with a zero of the padding or the stride is among them (arXiv 2306.15951).
    output_shape : tuple of int
        Shape of the result.
    """

    def __init__(
        self,
        pass_: str,
        problem: ConvProblem,
        in_place: bool = True,
        found: Machine | None = None,
    ):
        _dispatch.require_supported()
        p = problem
        self.pass_, self.problem = pass_, problem
        self._check_length(p.S * _CALL)
        self.multiply_adds = p.N * p.K * (p.C // p.g) * valid_pairs(p.W, p.S, p.Q, p.s, p.d, p.pl)
        self.output_shape = {
            "forward": (p.N, p.K, p.Q),
            "backward_data": (p.N, p.C, p.W),
            "backward_weight": (p.K, p.C // p.g, p.S),
        }[pass_]
        self._machine = found or machine(p.dtype)
        self._in_place = in_place
        code, stored, computed, _ = _DTYPES[p.dtype]
        self._code, self._same_type = code, stored == computed
        self._item = computed
        # LIBXSMM could emulate its kernels, but our own routines are machine code.
        self._native_bf16 = self._machine.bf16 and _dispatch.bf16_kernels()
        self.computed_dtype = np.dtype("f8" if computed == 8 else "f4")
        # Waking a thread costs some microseconds.
        self.most_threads = max(1, self.multiply_adds // THREAD_WORK)
        self.pack_key = None  # of a layer's packed weights: equal for equal packs
        self._variants: dict[str, Plan] = {}
        if self._make_unfolded():
            return
        if pass_ == "backward_weight":
            self._make_weight_gradient()
        else:
            self._make_correlate()

    def __setattr__(self, name, value):
        if "engine" in self.__dict__:  # the last one that __init__ sets
            raise AttributeError(f"a Plan never changes: {name} cannot be set")
        super().__setattr__(name, value)

    def _make_unfolded(self) -> bool:
        """Whether positions are so few that moving the weights takes the time; then it has an
        engine for that."""
        from xsmmconv._unfolded import UnfoldedCorrelate, UnfoldedGradient

        p = self.problem
        if not few_positions(p):
            return False
        sizes = p.N, p.g, p.C // p.g, p.K // p.g, p.S, p.d, p.W
        shape = UnfoldedShape(*sizes, places(p), _DTYPES[p.dtype][1], self._item)
        kind = PASSES.index(self.pass_)
        if not unfolded_is_better(shape, self._machine, kind):
            return False
        self._program, self._lanes = None, "grad_out"
        self._blocking = unfolded_blocking(shape, self._machine, kind)
        engine = UnfoldedGradient if self.pass_ == "backward_weight" else UnfoldedCorrelate
        self.engine = engine(shape, self._blocking, self._code)
        return True

    def _make_correlate(self) -> None:
        from xsmmconv._correlate import Correlate

        p = self.problem
        forward = self.pass_ == "forward"
        C, K = (p.C // p.g, p.K // p.g)[:: 1 if forward else -1]
        phases = (forward_phases if forward else backward_data_phases)(
            p.W, p.S, p.Q, p.s, p.d, p.pl
        )
        in_lanes = C == K == 1 and self._depthwise(phases, p.s if forward else 1)
        if not in_lanes and self._make_row_filter(C, K, phases):
            return
        merged = phases_as_filters(phases, C, K)
        pairs = multiply_pairs(C, K * max(1, len(merged)), phases, self._machine)
        shape = self._correlate_shape(C, K, phases, pairs)
        if merged and pairs != "taps":
            one = replace(phases[0], first=0, step=1)
            shape = replace(shape, K=K * len(merged), phases=(one,), merged=merged)
        if not (forward or shape.depthwise) and self._make_fold(C, K, shape):
            return
        choose = depthwise_blocking if shape.depthwise else correlate_blocking
        self._blocking = choose(shape, self._machine)
        if self._blocking.lists == "taps":
            self._check_tiles(phases, _CALL * ceil_div(shape.C, self._blocking.cb))
        else:
            self._check_tiles(phases, shape.C * (p.S if shape.tap_pairs else 1))
        self._program = lower_correlate(shape, self._blocking, p.S, _kernel)
        if self._program.weight.packed:
            # Forward and backward data can have the same layout, with the two axes swapped.
            of_kernels = shape.pairs, self._program.pair_lanes[1]
            self.pack_key = self.pass_, *of_kernels, str(self._program.weight)
        self.engine = Correlate(
            shape,
            self._blocking,
            self._program,
            p.S,
            not (forward or shape.depthwise),
            self._code,
            self._code,
        )

    def _make_fold(self, C: int, K: int, other: CorrelateShape) -> bool:
        """Whether all taps are the rows of one matrix product; then it has an engine for that."""
        p = self.problem
        sizes = max(1, p.N), p.g, C, K, p.S, p.W, p.Q, p.s, p.d, p.pl
        direct = other.direct_source and may_depend_on(p.Q)
        shape = FoldShape(*sizes, self._item, self._native_bf16, direct)
        if not fold_is_better(shape, other, self._machine):
            return False
        from xsmmconv._fold import Fold

        self._blocking = blocking = fold_blocking(shape, self._machine)
        self._program = lower_fold(shape, blocking, _kernel)
        self.pack_key = self.pass_, self._native_bf16, "folded"
        self.engine = Fold(shape, blocking, self._program, self._code)
        return True

    def _make_row_filter(self, C: int, K: int, phases: tuple) -> bool:
        """Whether rows are filtered, without matrices; then it has an engine for that."""
        from xsmmconv._row_filter import RowFilter

        p = self.problem
        forward = self.pass_ == "forward"
        stored, code = _DTYPES[p.dtype][1], 3 if self._native_bf16 else self._code
        shape = FilterShape(
            max(1, p.N),
            p.g,
            C,
            K,
            phases,
            p.s if forward else 1,
            p.W if forward else p.Q,
            stored,
            self._item,
            self._native_bf16 and all(run.spacing == 1 for ph in phases for run in ph.runs),
            self._in_place,
        )
        if not filters_are_better(shape, self._machine):
            return False
        blocking = filter_blocking(shape, self._machine)
        if blocking is not None:
            self._blocking, self._program = blocking, lower_filter(shape, blocking)
            self.engine = RowFilter(shape, blocking, self._program, not forward, code)
        return blocking is not None

    def _correlate_shape(self, C: int, K: int, phases: tuple, pairs: str) -> CorrelateShape:
        """C and K per group; BF16 is multiplied in `pairs` of these, where not depthwise."""
        p = self.problem
        forward = self.pass_ == "forward"
        out_width = p.Q if forward else p.W
        source_width = p.W if forward else p.Q
        direct_out = self._same_type and all(phase.step == 1 for phase in phases)
        direct_source = self._same_type and self._in_place
        known_source = direct_source and may_depend_on(source_width)
        planes = p.s if forward else 1
        depthwise = C == K == 1 and self._depthwise(phases, planes)
        if depthwise:
            pairs = "taps" if self._native_bf16 else ""
        rounded_out = bool(pairs) and all(phase.step == 1 for phase in phases)
        known_out = (direct_out or rounded_out) and may_depend_on(out_width)
        # Pairs of channels are what one tap of BF16 is anyway.
        as_pairs = forward and pairs == "channels" and p.S == 1 and C % 2 == 0
        natural = self._in_place and (self._same_type or as_pairs)
        return CorrelateShape(
            max(1, p.N),
            1 if depthwise else p.g,
            p.S,
            C,
            pairs == "channels",
            pairs == "taps",
            ceil_div(C, 2) if pairs == "channels" else C,
            p.g if depthwise else K,
            phases,
            source_width,
            planes,
            out_width,
            self._item,
            self._same_type,
            direct_source,
            direct_out,
            rounded_out,
            known_source,
            known_out,
            depthwise,
            order="KCS" if forward else "CKS",
            natural=natural,
        )

    def _make_weight_gradient(self) -> None:
        from xsmmconv._weight_gradient import WeightGradient

        p = self.problem
        windows = self._same_type and windows_in_lanes(p, self._item, self._machine)
        C, K, S, s, W = p.C // p.g, p.K // p.g, p.S, p.s, p.W
        depthwise = C == K == 1 and self._depthwise(
            forward_phases(W, S, p.Q, s, p.d, p.pl), s, weights=True
        )
        direct = S == 1 and self._same_type
        self._lanes = lanes_from(K, C, s, direct, self._item, self._machine.vector_bytes)
        sizes = self._lanes, self._item, 2 if self._native_bf16 else self._item
        dots = not (windows or depthwise) and rows_are_better(p, *sizes, self._machine)
        phases, borders = weight_phases(W, S, p.Q, s, p.d, p.pl, self._lanes), ()
        if windows:
            (phases, borders), C, S, s, self._lanes = windows_of(p), S, 1, 1, "x"
        filters = self._lanes == "grad_out"
        direct_rows = self._in_place and (self._same_type or self._machine.bf16)
        shape = WeightShape(
            max(1, p.N),
            1 if depthwise else p.g,
            (K if filters else C) * (p.g if depthwise else 1),
            C if filters else K,
            S,
            phases,
            W if filters else p.Q,
            s if filters else 1,
            self._item,
            self._same_type,
            direct_rows,
            direct_rows and may_depend_on(W if filters else p.Q),
            depthwise,
            depthwise and self._native_bf16,
            direct and not (filters or windows or depthwise),
            borders,
            p.d if windows else 0,
        )
        choose = depthwise_weight_blocking if depthwise else weight_blocking
        if not windows and batch_is_better(shape, self._machine, dots):
            choose = batch_blocking
        elif dots:
            return self._make_row_gradient(C, K)
        self._blocking = choose(shape, self._machine)
        if windows:
            reasons = (f"one channel: its {p.S} taps are the lanes", *self._blocking.reasons)
            self._blocking = replace(self._blocking, reasons=reasons)
        self._check_tiles(shape.phases, _CALL * S)
        self._program = lower_weight(shape, self._blocking, S, _kernel)
        of_engine = filters, 1 if filters else p.s, self._code
        self.engine = WeightGradient(shape, self._blocking, self._program, *of_engine)

    def _make_row_gradient(self, C: int, K: int) -> None:
        from xsmmconv._row_gradient import RowGradient, dots

        p, m = self.problem, self._machine
        grad_loads, x_loads = loads(K, C * p.S, m), loads(C, K * p.S, m)
        # The more rows a, the better: those of b are read again and again.
        filters = p.s > 1 or grad_loads < 0.97 * x_loads
        filters = filters or (grad_loads < 1.03 * x_loads and K >= C)
        self._lanes = "grad_out" if filters else "x"
        pairs = self._native_bf16
        shape = RowShape(
            max(1, p.N),
            p.g,
            K if filters else C,
            C if filters else K,
            p.S,
            weight_phases(p.W, p.S, p.Q, p.s, p.d, p.pl, self._lanes),
            p.W if filters else p.Q,
            p.s if filters else 1,
            2 if pairs else self._item,
            self._item,
            pairs,
            self._in_place and (self._same_type or pairs),
            (C * p.S, p.S, 1) if filters else (p.S, C * p.S, 1),
        )
        code = 3 if pairs else self._code
        self._blocking = row_blocking(shape, m)
        self._check_length(8 * shape.b_rows * p.S)
        self._program = lower_rows(shape, self._blocking, partial(dots, code))
        self.engine = RowGradient(shape, self._blocking, self._program, code)

    def _depthwise(self, phases, planes, weights=False):
        """Whether the channels of groups that have a single one, and one filter, are the lanes."""
        kind = self.problem.dtype if self._same_type or self._native_bf16 else "widened"
        found = self.problem.g, phases, planes, self._item, kind, self._machine
        return channels_in_lanes(*found, weights)

    def _check_tiles(self, phases, steps):
        """Check the length of a plan whose tiles take `steps` each, besides one for each tap."""
        for phase in phases:
            tiles = walk(phase, self._blocking.tile, self._blocking.border)
            each = steps + sum(len(run.taps) for run in phase.runs)
            self._check_length(sum(each for _ in islice(tiles, _MOST_STEPS // each + 1)))

    def _check_length(self, steps):
        if steps > _MOST_STEPS:
            p = self.problem
            raise UnsupportedError(
                f"{self.pass_} with {p.C // p.g} channels and {p.K // p.g} filters per group, "
                f"S={p.S} taps and W={p.W}: the plan would have {steps} steps or more, and "
                f"{_MOST_STEPS} is the most"
            )

    empty = staticmethod(_memory.empty)

    def with_output_shape(self, shape) -> Plan:
        """The same plan for inputs without a batch axis."""
        plan = copy.copy(self)
        plan.__dict__["output_shape"] = tuple(shape)
        return plan

    def for_strided(self) -> Plan:
        """The same plan for inputs that cannot be read in place: everything through panels."""
        if "strided" not in self._variants:
            self._variants["strided"] = Plan(self.pass_, self.problem, False, self._machine)
        return self._variants["strided"]

    def run(self, a, b, bias, relu, out, threads, packed=None) -> int:
        """Execute on validated arrays, the bias in `computed_dtype`; returns the number of
        multiply-adds issued. `packed` are the weights as the engine of this plan packs them.
        """
        if self.problem.N == 0:
            return 0
        threads = min(threads, self.most_threads)
        if self.pass_ == "backward_weight":
            lanes, rows = (a, b) if self._lanes == "grad_out" else (b, a)
            issued = self.engine.run(lanes, rows, out, _DTYPES[out.dtype.name][0], threads)
        else:
            issued = self.engine.run(a, b, packed, bias, relu, out, threads)
        if issued < 0:
            return self.for_strided().run(a, b, bias, relu, out, threads)
        return issued

    def issued_multiply_adds(self) -> int:
        """Execute once on zeros and add up m*n*k*(list length) of every kernel call."""
        p = self.problem
        x, w, y = ((p.N, p.C, p.W), (p.K, p.C // p.g, p.S), (p.N, p.K, p.Q))
        operands = {"forward": (x, w), "backward_data": (y, w), "backward_weight": (y, x)}
        a, b = (np.zeros(shape, self._dtype()) for shape in operands[self.pass_])
        return self.run(a, b, None, False, np.empty(self.output_shape, self._dtype()), 1)

    def _dtype(self):
        if self.problem.dtype == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(self.problem.dtype)

    def describe(self) -> str:
        """Everything that will happen, as text: sizes, segments, lists, kernels, scratch."""
        from xsmmconv._describe import describe

        return describe(self)


def kernels(dtype: str) -> str:
    """Type of the kernels that a dtype is computed with here, unless a shape does not suit them."""
    _dispatch.require_supported()
    return dtype if machine(dtype).bf16 else _DTYPES[dtype][3]


def cache_info() -> tuple[int, int]:
    """Number of plans in the cache, and how many it holds at most."""
    return len(_cache), _CACHED_PLANS


def get_plan(pass_: str, problem: ConvProblem) -> Plan:
    """The plan of a pass of a problem, from a bounded cache."""
    key = (pass_, problem)
    with _lock:
        plan = _cache.get(key)
        if plan is not None:
            _cache.move_to_end(key)
            return plan
    plan = Plan(pass_, problem)
    with _lock:
        _cache[key] = plan
        while len(_cache) > _CACHED_PLANS:
            _cache.popitem(last=False)
    return plan
