/* The notes of `arrivals.py`, whose class `PythonArrivals` says what each method does, kept in C. Linux alone has an epoll. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* What came to one socket: `count` arrivals, of which the times and, where `counted`, the bytes that waited; see `_Notes`. */
typedef struct {
    double *times;
    int *waiting;
    int count, room;
    char registered, followed, exact, counted, hurries, hurried;
} Notes;

typedef struct {
    PyObject_HEAD
    int epoll;
    Notes *notes; /* by descriptor */
    int size;
    struct epoll_event *told;
    int told_room;
} Arrivals;

static void drop(Notes *notes)
{
    notes->count = 0;
    notes->counted = 0;
}

static int add(Notes *notes, double at)
{
    if (notes->count == notes->room) {
        int room = notes->room ? 2 * notes->room : 64;
        double *times = realloc(notes->times, (size_t)room * sizeof *times);
        if (times == NULL)
            return 0;
        notes->times = times;
        int *waiting = realloc(notes->waiting, (size_t)room * sizeof *waiting);
        if (waiting == NULL)
            return 0;
        notes->waiting = waiting;
        notes->room = room;
    }
    notes->times[notes->count++] = at;
    return 1;
}

/* Returns the notes of a registered socket; without them NULL, and a KeyError is set. */
static Notes *of(Arrivals *self, int descriptor)
{
    if (descriptor >= 0 && descriptor < self->size && self->notes[descriptor].registered)
        return &self->notes[descriptor];
    PyErr_Format(PyExc_KeyError, "%d", descriptor);
    return NULL;
}

static Notes *named(Arrivals *self, PyObject *descriptor)
{
    int value = PyLong_Check(descriptor) ? (int)PyLong_AsLong(descriptor) : -1;
    return PyErr_Occurred() ? NULL : of(self, value);
}

static PyObject *arrivals_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "", names))
        return NULL;
    Arrivals *self = (Arrivals *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *arrivals_close(Arrivals *self, PyObject *Py_UNUSED(nothing))
{
    if (self->epoll >= 0)
        close(self->epoll);
    self->epoll = -1;
    Py_RETURN_NONE;
}

static void arrivals_dealloc(Arrivals *self)
{
    PyTypeObject *type = Py_TYPE(self);
    if (self->epoll >= 0)
        close(self->epoll);
    for (int i = 0; i < self->size; i++) {
        free(self->notes[i].times);
        free(self->notes[i].waiting);
    }
    free(self->notes);
    free(self->told);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *arrivals_register(Arrivals *self, PyObject *argument)
{
    int descriptor = (int)PyLong_AsLong(argument);
    if (PyErr_Occurred())
        return NULL;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = descriptor};
    if (epoll_ctl(self->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (descriptor >= self->size) {
        int size = descriptor + 64;
        Notes *notes = realloc(self->notes, (size_t)size * sizeof *notes);
        if (notes == NULL)
            return PyErr_NoMemory();
        memset(notes + self->size, 0, (size_t)(size - self->size) * sizeof *notes);
        self->notes = notes;
        self->size = size;
    }
    Notes *notes = &self->notes[descriptor];
    drop(notes);
    notes->followed = notes->exact = notes->hurries = notes->hurried = 0;
    notes->registered = 1;
    Py_RETURN_NONE;
}

static PyObject *follow(Arrivals *self, PyObject *descriptor, char exact)
{
    Notes *notes = named(self, descriptor);
    if (notes == NULL)
        return NULL;
    notes->followed = 1;
    notes->exact = exact;
    Py_RETURN_NONE;
}

static PyObject *arrivals_follow(Arrivals *self, PyObject *descriptor)
{
    return follow(self, descriptor, 0);
}

static PyObject *arrivals_follow_exactly(Arrivals *self, PyObject *descriptor)
{
    return follow(self, descriptor, 1);
}

static PyObject *arrivals_unfollow(Arrivals *self, PyObject *descriptor)
{
    Notes *notes = named(self, descriptor);
    if (notes == NULL)
        return NULL;
    notes->followed = 0;
    Py_RETURN_NONE;
}

static PyObject *look(Arrivals *self, PyObject *const *args, Py_ssize_t nargs, char counted)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "a look takes 2 arguments, not %zd", nargs);
    double at = PyFloat_AsDouble(args[0]);
    long most = PyLong_AsLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (most > self->told_room) {
        struct epoll_event *told = realloc(self->told, (size_t)most * sizeof *told);
        if (told == NULL)
            return PyErr_NoMemory();
        self->told = told;
        self->told_room = (int)most;
    }
    int found = epoll_wait(self->epoll, self->told, (int)most, 0);
    if (found < 0) {
        if (errno == EINTR)
            Py_RETURN_NONE;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    for (int i = 0; i < found; i++) {
        int descriptor = self->told[i].data.fd;
        Notes *notes = of(self, descriptor);
        if (notes == NULL)
            return NULL;
        if (!notes->followed)
            continue;
        if (notes->count == 0)
            notes->counted = counted && notes->exact;
        if (!add(notes, at))
            return PyErr_NoMemory();
        if (notes->counted && ioctl(descriptor, FIONREAD, &notes->waiting[notes->count - 1]) < 0)
            return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *arrivals_look(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    return look(self, args, nargs, 0);
}

static PyObject *arrivals_look_and_count(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    return look(self, args, nargs, 1);
}

static PyObject *arrivals_note(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "note takes 2 arguments, not %zd", nargs);
    Notes *notes = named(self, args[0]);
    double at = PyFloat_AsDouble(args[1]);
    if (notes == NULL || PyErr_Occurred())
        return NULL;
    notes->counted = 0;
    return add(notes, at) ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

static PyObject *arrivals_due(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "due takes 2 arguments, not %zd", nargs);
    double silent = PyFloat_AsDouble(args[0]), oldest = PyFloat_AsDouble(args[1]);
    long in_vain = 0;
    PyObject *found = PyErr_Occurred() ? NULL : PyList_New(0);
    for (int i = 0; found != NULL && i < self->size; i++) {
        Notes *notes = &self->notes[i];
        if (!notes->followed || !notes->count || !(notes->times[notes->count - 1] < silent || notes->times[0] < oldest))
            continue;
        notes->hurries = notes->times[0] >= oldest;
        in_vain += notes->hurried;
        PyObject *descriptor = PyLong_FromLong(i);
        if (descriptor == NULL || PyList_Append(found, descriptor) < 0)
            Py_CLEAR(found);
        Py_XDECREF(descriptor);
    }
    return found == NULL ? NULL : Py_BuildValue("(Nl)", found, in_vain);
}

static PyObject *arrivals_take(Arrivals *self, PyObject *descriptor)
{
    Notes *notes = named(self, descriptor);
    if (notes == NULL)
        return NULL;
    PyObject *times = PyList_New(notes->count), *waiting = notes->counted ? PyList_New(notes->count) : Py_NewRef(Py_None);
    for (int i = 0; times != NULL && waiting != NULL && i < notes->count; i++) {
        PyObject *at = PyFloat_FromDouble(notes->times[i]), *bytes = notes->counted ? PyLong_FromLong(notes->waiting[i]) : NULL;
        if (at == NULL || (notes->counted && bytes == NULL)) {
            Py_XDECREF(at);
            Py_XDECREF(bytes);
            Py_CLEAR(times);
            break;
        }
        PyList_SET_ITEM(times, i, at);
        if (bytes != NULL)
            PyList_SET_ITEM(waiting, i, bytes);
    }
    if (times == NULL || waiting == NULL) {
        Py_XDECREF(times);
        Py_XDECREF(waiting);
        return NULL;
    }
    drop(notes);
    notes->hurried = notes->hurries;
    notes->hurries = 0;
    return Py_BuildValue("(NN)", times, waiting);
}

static PyObject *arrivals_forget(Arrivals *self, PyObject *descriptor)
{
    Notes *notes = named(self, descriptor);
    if (notes == NULL)
        return NULL;
    drop(notes);
    notes->followed = notes->hurries = notes->hurried = 0;
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"register", (PyCFunction)arrivals_register, METH_O, NULL},
    {"follow", (PyCFunction)arrivals_follow, METH_O, NULL},
    {"follow_exactly", (PyCFunction)arrivals_follow_exactly, METH_O, NULL},
    {"unfollow", (PyCFunction)arrivals_unfollow, METH_O, NULL},
    {"look", (PyCFunction)(void (*)(void))arrivals_look, METH_FASTCALL, NULL},
    {"look_and_count", (PyCFunction)(void (*)(void))arrivals_look_and_count, METH_FASTCALL, NULL},
    {"note", (PyCFunction)(void (*)(void))arrivals_note, METH_FASTCALL, NULL},
    {"due", (PyCFunction)(void (*)(void))arrivals_due, METH_FASTCALL, NULL},
    {"take", (PyCFunction)arrivals_take, METH_O, NULL},
    {"forget", (PyCFunction)arrivals_forget, METH_O, NULL},
    {"close", (PyCFunction)arrivals_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot TYPE_SLOTS[] = {
    {Py_tp_new, arrivals_new},
    {Py_tp_dealloc, arrivals_dealloc},
    {Py_tp_methods, METHODS},
    {0, NULL},
};
static PyType_Spec TYPE = {
    .name = "batchrun.transport.own._arrivals.Arrivals",
    .basicsize = sizeof(Arrivals),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = TYPE_SLOTS,
};

static int begin(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &TYPE, NULL);
    if (type == NULL)
        return -1;
    int failed = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return failed;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, begin}, {0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_arrivals", .m_slots = SLOTS};

PyMODINIT_FUNC PyInit__arrivals(void)
{
    return PyModuleDef_Init(&MODULE);
}
