"""The way of every call: checked once for its shapes, dtypes and parameters, then only repeated.

What `_problem` finds out about a call, and the plan it leads to, are kept under a key of plain
integers. A call like an earlier one is looked up, its `out` is checked, and the engine runs; this
is compiled, because short convolutions take only some microseconds themselves.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memset
cimport cython
cimport numpy as cnp

import numpy as np

from xsmmconv import _plan, _problem, _threads

cnp.import_array()

cdef enum Function:
    FORWARD
    BACKWARD_DATA
    BACKWARD_WEIGHT
    TRANSPOSED


# More than the shapes of a model; the bound keeps the memory of a run over many widths.
cdef Py_ssize_t MOST_CALLS = 1024
cdef dict calls = {}
_CHECKS = (_problem.forward, _problem.backward_data, _problem.backward_weight, _problem.transposed)
_PASSES = ("forward", "backward_data", "backward_weight", "backward_data")
_NAMES = (("x", "weight"), ("grad_out", "weight"), ("grad_out", "x"), ("x", "weight"))
_PADDINGS = {"valid": 1, "same": 2, "causal": 3}


cdef struct Key:
    # All that the checks and the plan depend on.
    int64_t function
    int64_t dtypes[4]      # addresses of dtypes, which the call keeps alive: a, b, bias, result
    int64_t axes[3]        # of a, b and bias (-1: none)
    int64_t shapes[3][3]
    int64_t parameters[6]  # stride, dilation, groups, and padding: its kind, left, right
    int64_t extra          # input_width, filter_width or output_padding


@cython.final
cdef class Call:
    """What the calls of one key have in common."""
    cdef object plan       # None: there are no rows to compute
    cdef object engine     # of a correlation; a weight gradient is left to its plan
    cdef object pack_key
    cdef object shape
    cdef cnp.dtype dtype
    cdef int axes
    cdef int64_t extents[3]
    cdef tuple keep        # the dtypes in the key
    cdef cnp.dtype computed
    cdef int64_t threads
    cdef Call strided

    def __init__(self, plan, shape, dtype, keep):
        self.plan, self.shape, self.dtype, self.keep = plan, shape, dtype, keep
        self.axes = len(shape)
        for i, extent in enumerate(shape):
            self.extents[i] = extent
        if plan is not None and plan.pass_ != "backward_weight":
            self.engine, self.pack_key = plan.engine, plan.pack_key
            self.computed, self.threads = plan.computed_dtype, plan.most_threads

    cdef Call for_strided(self):
        """The same for inputs that the engine cannot read in place."""
        if self.strided is None:
            self.strided = Call(self.plan.for_strided(), self.shape, self.dtype, self.keep)
        return self.strided


cdef bint add_array(Key* key, int place, cnp.ndarray array):
    cdef int axes = cnp.PyArray_NDIM(array), i
    key.axes[place] = axes
    key.dtypes[place] = <uintptr_t> <void*> cnp.PyArray_DESCR(array)
    for i in range(min(axes, 3)):
        key.shapes[place][i] = cnp.PyArray_DIM(array, i)
    return axes <= 3


cdef bint add_integer(int64_t* place, object value) except -1:
    cdef int overflow = 0
    place[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
    return not overflow


cdef bint add_padding(int64_t* place, object padding) except -1:
    if type(padding) is int:
        return add_integer(place + 1, padding)
    if type(padding) is tuple:
        place[0] = 4
        return add_integer(place + 1, padding[0]) and add_integer(place + 2, padding[1])
    place[0] = _PADDINGS.get(padding, 0)
    return place[0] != 0


cdef object key_of(int function, cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias, extra, dtype,
                   tuple parameters):
    """The key of a call as bytes, or None if a number does not fit: it will be refused."""
    cdef Key key
    memset(&key, 0, sizeof(Key))
    key.function = function
    stride, padding, dilation, groups = parameters
    key.axes[2] = -1
    if not (add_array(&key, 0, a) and add_array(&key, 1, b)
            and (bias is None or add_array(&key, 2, bias))
            and add_integer(&key.parameters[0], stride)
            and add_integer(&key.parameters[1], dilation)
            and add_integer(&key.parameters[2], groups)
            and add_padding(&key.parameters[3], padding)
            and add_integer(&key.extra, extra)):
        return None
    if dtype is not None:
        key.dtypes[3] = <uintptr_t> <void*> dtype
    return PyBytes_FromStringAndSize(<char*> &key, sizeof(Key))


cdef Call find(int function, cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias, extra, dtype,
               tuple parameters):
    """The call of a key, from the table or checked and planned now."""
    key = key_of(function, a, b, bias, extra, dtype, parameters)
    found = calls.get(key)
    if found is not None:
        return <Call> found
    cdef tuple shape_a = (<object> a).shape, shape_b = (<object> b).shape
    facts = [shape_a, a.dtype, shape_b, b.dtype]
    if function == FORWARD or function == TRANSPOSED:
        facts.append(None if bias is None else ((<object> bias).shape, bias.dtype))
    if function != FORWARD:
        facts.append(extra)
    if function == BACKWARD_WEIGHT:
        facts.append(dtype)
    keep = a.dtype, b.dtype, None if bias is None else bias.dtype, dtype
    problem, shape, result_dtype = _CHECKS[function](*facts, *parameters)
    plan = _plan.get_plan(_PASSES[function], problem) if problem.N else None
    cdef Call call = Call(plan, shape, result_dtype, keep)
    if key is not None:
        while len(calls) >= MOST_CALLS:
            calls.pop(next(iter(calls)))
        calls[key] = call
    return call


def cache_info():
    """Number of calls that are remembered, and how many are at most."""
    return len(calls), MOST_CALLS


cdef bint apart(cnp.ndarray operand, cnp.ndarray out):
    """Whether two arrays are seen at once to share no memory; False says nothing."""
    if cnp.PyArray_BASE(operand) == NULL and cnp.PyArray_BASE(out) == NULL:
        return operand is not out  # both own their memory
    cdef const char* a = <const char*> cnp.PyArray_DATA(operand)
    cdef const char* b = <const char*> cnp.PyArray_DATA(out)
    return cnp.PyArray_ISCARRAY_RO(operand) and (
        a + cnp.PyArray_NBYTES(operand) <= b or b + cnp.PyArray_NBYTES(out) <= a)


cdef cnp.ndarray checked(Call call, out, cnp.ndarray a, cnp.ndarray b, cnp.ndarray bias,
                         int function):
    """`out` as the array to write to."""
    cdef cnp.ndarray array
    cdef int i
    if cnp.PyArray_CheckExact(out):
        array = out
        if (cnp.PyArray_NDIM(array) == call.axes and cnp.PyArray_ISCARRAY(array)
                and <void*> cnp.PyArray_DESCR(array) == <void*> call.dtype
                and apart(a, array) and apart(b, array) and (bias is None or apart(bias, array))):
            for i in range(cnp.PyArray_NDIM(array)):
                if cnp.PyArray_DIM(array, i) != call.extents[i]:
                    break
            else:
                return array
    names = _NAMES[function]
    operands = {names[0]: a, names[1]: b}
    if bias is not None:
        operands["bias"] = bias
    return _problem.output(out, call.shape, call.dtype, operands)


cdef bint correlate(Call call, a, b, bias, bint relu, result, int64_t threads,
                    dict packs) except -1:
    """Run the engine; False, and nothing done, if it cannot read these arrays in place."""
    packed = None
    if packs is not None and call.pack_key is not None:
        packed = packs.get(call.pack_key)
        if packed is None:
            packed = packs[call.pack_key] = call.engine.pack(b)
    return call.engine.run(a, b, packed, bias, relu, result, min(threads, call.threads)) >= 0


cdef object run(int function, a, b, bias, extra, dtype, parameters, bint relu, out, threads,
                dict packs):
    cdef Call call = find(function, a, b, bias, extra, dtype, parameters)
    cdef int64_t most = _threads.resolve(threads)
    if out is None:
        result = out = np.empty(call.shape, call.dtype) if call.plan is None else (
            # Large results use memory again that earlier ones have left.
            call.plan.empty(call.shape, call.dtype))
    else:
        result = checked(call, out, a, b, bias, function)
    if call.plan is None:
        result.fill(0)
        return out
    if function == BACKWARD_WEIGHT:
        if cnp.PyArray_NDIM(a) == 2:
            a, b = a[np.newaxis], b[np.newaxis]
        call.plan.run(a, b, None, False, result, most)
        return out
    if cnp.PyArray_NDIM(a) == 2:
        a, result = a[np.newaxis], result[np.newaxis]
    if bias is not None and not (cnp.PyArray_ISCARRAY_RO(bias) and bias.dtype is call.computed):
        bias = bias.astype(call.computed, order="C")  # the engines read it as it lies
    if not correlate(call, a, b, bias, relu, result, most, packs):
        correlate(call.for_strided(), a, b, bias, relu, result, most, packs)
    return out


cdef inline cnp.ndarray array(str name, value):
    return value if cnp.PyArray_CheckExact(value) else _problem.array(name, value)


cdef inline tuple plain(tuple parameters):
    stride, padding, dilation, groups = parameters
    if type(stride) is int and type(padding) is int and type(dilation) is int and (
            type(groups) is int):
        return parameters
    return _problem.parameters(stride, padding, dilation, groups)


def forward(x, weight, bias, tuple parameters, activation, out, threads, dict packs=None):
    """`conv1d`; a layer passes the dictionary of its packed weights along."""
    x, weight = array("x", x), array("weight", weight)
    bias = None if bias is None else array("bias", bias)
    relu = activation is not None and _problem.relu(activation)
    return run(FORWARD, x, weight, bias, 0, None, plain(parameters), relu, out, threads, packs)


def backward_data(grad_out, weight, input_width, tuple parameters, out, threads, dict packs=None):
    """`conv1d_backward_data`; a layer passes the dictionary of its packed weights along."""
    grad_out, weight = array("grad_out", grad_out), array("weight", weight)
    parameters = plain(parameters)
    input_width = _problem.integer("input_width", input_width)
    return run(BACKWARD_DATA, grad_out, weight, None, input_width, None, parameters, False, out,
               threads, packs)


def backward_weight(grad_out, x, filter_width, tuple parameters, dtype, out, threads):
    """`conv1d_backward_weight`."""
    grad_out, x = array("grad_out", grad_out), array("x", x)
    parameters = plain(parameters)
    filter_width = _problem.integer("filter_width", filter_width)
    dtype = None if dtype is None else _problem.dtype(dtype)
    return run(BACKWARD_WEIGHT, grad_out, x, None, filter_width, dtype, parameters, False, out,
               threads, None)


def transposed(x, weight, bias, output_padding, tuple parameters, activation, out, threads):
    """`conv_transpose1d`."""
    x, weight = array("x", x), array("weight", weight)
    bias = None if bias is None else array("bias", bias)
    relu = activation is not None and _problem.relu(activation)
    parameters = plain(parameters)
    output_padding = _problem.integer("output_padding", output_padding)
    return run(TRANSPOSED, x, weight, bias, output_padding, None, parameters, relu, out, threads,
               None)
