"""Engine 1 without matrices: rows of the source against the taps of filters.

For groups of so few channels that a matrix product is little more than products of vectors, as in
depthwise convolutions: forward, backward data and transposed. Rows are read where they lie, or from
panels of their planes, and written where they lie, or phase by phase and then interleaved.
"""
from libc.stdint cimport int64_t
from libc.stdlib cimport free
from libc.string cimport memcpy
cimport cython
cimport numpy as cnp

from xsmmconv._memory cimport Scratch, copy_rows, operand
from xsmmconv._pack cimport (
    copy_weights, element_ops_of, filter_row_of, filter_row_t, interleave_elements, pack_ops,
    pack_ops_of, row_filter, row_run,
)
from xsmmconv._panel cimport Operand, Panel, Window, pack_panel
from xsmmconv._team cimport team_of, team_run

from xsmmconv._dispatch import vector_bytes
from xsmmconv._layout import window_rows

cnp.import_array()

cdef enum:
    LINE = 64


cdef struct Run:
    # As row_run, in elements.
    int64_t taps
    int64_t step
    int64_t shift
    int64_t spacing
    int64_t length
    int64_t source       # the row of the group,
    int64_t place        # and what column 0 reads of it, or of its panel
    int64_t first_tap    # of the weights,
    int64_t tap_step     # and from one to the next


cdef struct Phase:
    int64_t count        # columns
    int64_t first        # of those that all taps are for
    int64_t end
    int64_t run
    int64_t runs
    int64_t taps         # of all of them


cdef struct Offset:
    # Of a run, in bytes: of what column 0 reads from the rows of the unit, and of the weights from
    # those of the output.
    int64_t src
    int64_t weights


cdef struct Table:
    # The program: one routine and its extents.
    filter_row_t routine
    Run* runs            # of an output
    int64_t n_runs
    Phase* phases        # of all columns of the output, in turns
    int64_t n_phases
    Panel panel
    int64_t planes
    int64_t units        # rows of the batch and groups,
    int64_t groups
    int64_t together     # so many of an item
    int64_t sources      # rows of a group,
    int64_t outputs      # and of the output
    int64_t tile         # columns of an item, of each phase
    int64_t tiles
    int64_t out_width
    int64_t item         # bytes of an element in the arrays,
    int64_t computed     # and of a sum
    int64_t panel_bytes  # where scratch memory holds the panel, behind a line of the cache, the
    # results of all phases,
    int64_t phase_bytes
    int64_t phase_row    # bytes of one
    int64_t weights      # and the weights, bytes of a run
    bint packed
    bint swapped         # backward data: the axes of the weights have other roles
    const pack_ops* ops
    const pack_ops* single  # of FP32


cdef struct Arrays:
    # The operands of one execution; strides in bytes.
    Operand source
    const char* weight
    int64_t weight_group
    int64_t weight_out
    int64_t weight_source
    int64_t weight_tap
    const char* bias
    char* out
    bint relu
    bint copied          # the weights are to be copied


cdef bint init_runs(const Table* t, const Arrays* v, int64_t row, row_run* runs,
                    Offset* offsets) noexcept nogil:
    """What is the same for all outputs; returns whether weights must be copied, as they are not as
    the routines want them."""
    cdef int64_t i
    cdef bint copy = v.copied
    cdef Run* run
    for i in range(t.n_runs):
        run = &t.runs[i]
        runs[i].taps, runs[i].step = run.taps, run.step * t.item
        runs[i].shift, runs[i].spacing, runs[i].length = run.shift, run.spacing, run.length
        offsets[i].src = run.source * row + run.place * t.item
        offsets[i].weights = run.source * v.weight_source + run.first_tap * v.weight_tap
        copy = copy or run.tap_step * v.weight_tap != t.item
    return copy


cdef void copy_filter(const Table* t, const Arrays* v, char* copied, row_run* runs) noexcept nogil:
    """The weights of an output, with zeros beside them."""
    cdef int64_t i
    for i in range(t.n_runs):
        copy_weights(copied, runs[i].weights, t.runs[i].tap_step * v.weight_tap, runs[i].taps,
                     t.item)
        runs[i].weights, copied = copied + t.item, copied + t.weights


cdef int64_t run_phases(const Table* t, row_filter* f, char* out, char* results, int64_t start) \
        noexcept nogil:
    """A tile of all phases, of which the first may have a column more, interleaved."""
    cdef int64_t i, p, work = 0, end = start + t.tile, size = t.item
    cdef int64_t whole = max(0, min(end, t.phases[t.n_phases - 1].count) - start)
    cdef const row_run* runs = f.runs
    cdef const Phase* phase
    for p in range(t.n_phases):
        phase = &t.phases[p]
        f.runs, f.n_runs, f.taps = runs + phase.run, phase.runs, phase.taps
        f.first, f.end = phase.first, phase.end
        work += t.routine(results + p * t.phase_row - start * size, f, start,
                          min(end, phase.count))
    f.runs = runs
    interleave_elements(out, results, t.phase_row, t.n_phases, whole, t.ops, t.single)
    for p in range(t.n_phases):
        for i in range(whole, min(end, t.phases[p].count) - start):
            memcpy(out + (i * t.n_phases + p) * size, results + p * t.phase_row + i * size, size)
    return work


cdef int64_t run_item(const void* table, const void* arrays, int64_t index, char* scratch) \
        noexcept nogil:
    """A tile of some units."""
    cdef const Table* t = <const Table*> table
    cdef const Arrays* v = <const Arrays*> arrays
    cdef int64_t first = index // t.tiles * t.together, o, i, _, work = 0
    cdef int64_t n = first // t.groups, g = first % t.groups
    cdef int64_t start = index % t.tiles * t.tile, end = min(start + t.tile, t.phases[0].count)
    cdef int64_t row = t.panel.row * t.item if t.packed else v.source.stride_c
    cdef char* results = scratch + t.panel_bytes
    cdef row_run* runs = <row_run*> (results + t.phase_bytes)
    cdef Offset* offsets = <Offset*> (runs + t.n_runs)
    cdef char* copied = <char*> (offsets + t.n_runs)
    cdef bint copy = init_runs(t, v, row, runs, offsets)
    cdef char* out = v.out + (first * t.outputs * t.out_width + start * t.n_phases) * t.item
    cdef char* panel = scratch + LINE  # routines may read what is just in front of a row
    cdef const char* rows = panel - start * t.item
    cdef const char* weight
    cdef row_filter f
    f.runs, f.n_runs, f.taps = runs, t.phases[0].runs, t.phases[0].taps
    f.first, f.end, f.relu, f.bias = t.phases[0].first, t.phases[0].end, v.relu, NULL
    for _ in range(first, min(first + t.together, t.units)):
        if t.packed:
            pack_panel(&t.panel, &v.source, panel, n, g * t.sources, t.sources, start,
                       max(0, start + t.tile - t.phases[0].count))
        else:
            rows = v.source.data + n * v.source.stride_n + g * t.sources * row
        weight = v.weight + g * v.weight_group
        for o in range(t.outputs):
            for i in range(t.n_runs):
                runs[i].src, runs[i].weights = rows + offsets[i].src, weight + offsets[i].weights
            if copy:
                copy_filter(t, v, copied, runs)
            if v.bias != NULL:
                f.bias = v.bias + (g * t.outputs + o) * t.computed
            if t.n_phases > 1:
                work += run_phases(t, &f, out, results, start)
            else:
                work += t.routine(out - start * t.item, &f, start, end)
            out += t.out_width * t.item
            weight += v.weight_out
        g += 1
        if g == t.groups:
            n, g = n + 1, 0
    return work


@cython.final
cdef class RowFilter:
    """An immutable program of filtered rows, ready to be executed by any number of threads."""
    cdef Table t
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t scratch_bytes
    cdef readonly Py_ssize_t shared_bytes

    def __dealloc__(self):
        free(self.t.runs)
        free(self.t.phases)
        free(self.t.panel.windows)

    def __init__(self, sh, bl, program, bint swapped, int dtype):
        """`dtype` is PACK_PAIRS where the processor multiplies BF16."""
        cdef Table* t = &self.t
        cdef bint wide = vector_bytes() == 64
        t.runs = <Run*> copy_rows(program.runs, sizeof(Run) // 8)
        t.phases = <Phase*> copy_rows(program.phases, sizeof(Phase) // 8)
        t.n_phases = len(program.phases)
        t.panel.windows = <Window*> copy_rows(
            window_rows(program.source, sh.planes, 3), sizeof(Window) // 8)
        t.panel.n_windows, t.panel.row = len(program.source.windows), program.source.row
        t.panel.pairs = t.panel.tap_pairs = False
        t.routine = filter_row_of(dtype, wide, all(run[1] == 1 for run in program.runs))
        t.ops, t.single = element_ops_of(dtype, wide), pack_ops_of(0, wide)
        t.units, t.groups, t.together = sh.N * sh.groups, sh.groups, bl.units
        t.sources, t.outputs, t.planes = sh.sources, sh.outputs, sh.planes
        t.tile = bl.tile
        t.tiles = (t.phases[0].count + t.tile - 1) // t.tile
        t.out_width = sum(phase.count for phase in sh.phases)
        t.item, t.computed = sh.stored, sh.computed
        t.packed, t.swapped = bl.packed, swapped
        t.n_runs = len(program.runs)
        t.weights = ((max(run[0] for run in program.runs) + 1) * t.item + 15) // 8 * 8
        t.panel_bytes = (
            LINE + (sh.sources * t.panel.row * t.item + 63) // 64 * 64 if t.packed else 0)
        t.phase_row = (t.tile * t.item + 127) // 64 * 64 if t.n_phases > 1 else 0
        t.phase_bytes = t.n_phases * t.phase_row
        self.items = (t.units + t.together - 1) // t.together * t.tiles
        self.scratch_bytes = (
            t.panel_bytes + t.phase_bytes
            + t.n_runs * (sizeof(row_run) + sizeof(Offset) + t.weights))
        self.shared_bytes = 0

    def run(self, cnp.ndarray source, cnp.ndarray weight, packed, cnp.ndarray bias, bint relu,
            cnp.ndarray out, int threads):
        """Execute the program on validated arrays; returns the multiply-adds it issued.

        Returns -1, and does nothing, if the program reads rows in place and these are not plain.
        Nothing is ever `packed`: the weights of an output are few.
        """
        cdef Table* t = &self.t
        cdef Arrays v
        cdef int64_t work, by_filter = cnp.PyArray_STRIDE(weight, 0)
        cdef int64_t by_channel = cnp.PyArray_STRIDE(weight, 1)
        cdef Scratch scratch
        v.source = operand(source, t.planes, t.ops)
        if not t.packed and v.source.stride_w != t.item:
            return -1
        v.weight = <const char*> cnp.PyArray_DATA(weight)
        v.weight_out, v.weight_source = by_filter, by_channel
        if t.swapped:
            v.weight_out, v.weight_source = by_channel, by_filter
        v.weight_group = by_filter * (t.sources if t.swapped else t.outputs)
        v.weight_tap = cnp.PyArray_STRIDE(weight, 2)
        v.copied = t.item != t.computed or not cnp.PyArray_ISALIGNED(weight)
        v.bias = NULL
        if bias is not None:
            v.bias = <const char*> cnp.PyArray_DATA(bias)
        v.out = <char*> cnp.PyArray_DATA(out)
        v.relu = relu
        threads = team_of(min(threads, self.items))
        scratch = Scratch(threads, self.scratch_bytes, 0)
        with nogil:
            work = team_run(run_item, t, &v, self.items, threads, scratch.memory, scratch.stride)
        return work
