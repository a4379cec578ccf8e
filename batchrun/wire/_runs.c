/* The deltas of a stream, joined as they are decoded. `runs.py` says what for; `sse.py` has the rules of a block.
 *
 * One function that keeps no state. It knows an event exactly or leaves it, as a line, to those who know all of them:
 * another order of fields, half a surrogate pair, text that is not UTF-8, an index beyond nine digits.
 */

#include "_usual.h"

static int append(PyObject *list, PyObject *item)
{
    int done = item != NULL && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    return done;
}

static int append_run(PyObject *list, const Place *place, const char *text, const char *end, Py_ssize_t count)
{
    if (count == 0)
        return 1;
    PyObject *joined = PyUnicode_DecodeUTF8(text, end - text, NULL);
    return joined != NULL && append(list, Py_BuildValue("(ilNn)", place->kind, place->index, joined, count));
}

PyDoc_STRVAR(take_apart_doc, "take_apart(block, /)\n--\n\n"
                             "Return the lines and runs of a block of plain events, or None where it is not plain.");

static PyObject *take_apart(PyObject *Py_UNUSED(module), PyObject *block)
{
    if (!PyBytes_Check(block))
        return PyErr_Format(PyExc_TypeError, "a block is bytes, not %.100s", Py_TYPE(block)->tp_name);
    const char *p = PyBytes_AS_STRING(block), *end = p + PyBytes_GET_SIZE(block), *data, *data_end;
    PyObject *found = PyList_New(0);
    char *begin = PyMem_Malloc((size_t)(end - p) + 1), *to = begin, *after; /* the run's text is from `begin` to `to` */
    Place run = {0, 0}, place;
    Py_ssize_t count = 0;
    int is_plain = 1;
    if (begin == NULL)
        PyErr_NoMemory();
    if (found == NULL || begin == NULL)
        goto failed;
    p += p < end; /* the line end that each block begins with */
    while (p < end && (is_plain = plain(&p, end, &data, &data_end))) {
        after = delta(data, data_end, to, &place);
        if (count && (after == NULL || place.kind != run.kind || place.index != run.index)) {
            if (!append_run(found, &run, begin, to, count))
                goto failed;
            if (after != NULL)
                memmove(begin, to, (size_t)(after - to));
            after = after == NULL ? NULL : begin + (after - to);
            count = 0;
        }
        if (after != NULL) {
            run = place;
            to = after;
            count++;
        } else {
            to = begin;
            if (!append(found, PyBytes_FromStringAndSize(data, data_end - data)))
                goto failed;
        }
    }
    if (is_plain && !append_run(found, &run, begin, to, count))
        goto failed;
    PyMem_Free(begin);
    if (is_plain && PyList_GET_SIZE(found) > 0)
        return found;
    Py_DECREF(found);
    Py_RETURN_NONE;
failed:
    PyMem_Free(begin);
    Py_XDECREF(found);
    return NULL;
}

static PyMethodDef METHODS[] = {{"take_apart", take_apart, METH_O, take_apart_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot SLOTS[] = {{0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_runs", .m_methods = METHODS, .m_slots = SLOTS};

PyMODINIT_FUNC PyInit__runs(void)
{
    return PyModuleDef_Init(&MODULE);
}
