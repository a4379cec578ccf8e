/* The notes of `arrivals.py`, whose classes `PythonArrivals` and `Watcher` say what each method does, kept in C.
   Linux alone has an epoll.

   Here a thread can look, too (`watch`). It knows nothing of Python: it shares the fields below `lock` with the methods, which
   hold the lock while they use them and make no Python object meanwhile, as that may run anybody's code. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define RINGS 8 /* so often at most, while bytes gather for as long as they may, the bell is rung for what is old */

/* What came to one socket: `count` arrivals, of which the times and, where `counted`, the bytes that waited; see `_Notes`. */
typedef struct {
    double *times;
    int *waiting;
    int count, room;
    char registered, followed, exact, counted, hurries, hurried;
} Notes;

/* How often to look, and when to ring: see `Watcher.watch`. */
typedef struct {
    double look, patience, longest;
    int counted;
} Pace;

typedef struct {
    PyObject_HEAD
    int epoll, bell;
    pthread_t thread;
    int watching; /* there is a thread */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* there is somebody to follow again, or the end has come */
    Notes *notes;           /* by descriptor */
    int size, following;
    struct epoll_event *told;
    int told_room;
    Pace pace;
    double looked_at, gap, rung_at; /* the last look, the time between it and the one before, and the last ring */
    int rung, ends, fault;          /* `fault`: the errno that ended the thread */
} Arrivals;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time); /* Python's time.monotonic() */
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

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

static int is_due(const Notes *notes, double silent, double oldest)
{
    return notes->followed && notes->count && (notes->times[notes->count - 1] < silent || notes->times[0] < oldest);
}

/* Note what has come at a time. Returns an errno; the lock is held. */
static int look(Arrivals *self, double at, int most, int counted)
{
    if (most > self->told_room) {
        struct epoll_event *told = realloc(self->told, (size_t)most * sizeof *told);
        if (told == NULL)
            return ENOMEM;
        self->told = told;
        self->told_room = most;
    }
    int found = epoll_wait(self->epoll, self->told, most, 0);
    if (found < 0)
        return errno == EINTR ? 0 : errno;
    for (int i = 0; i < found; i++) {
        int descriptor = self->told[i].data.fd;
        Notes *notes = &self->notes[descriptor];
        if (!notes->followed)
            continue;
        if (notes->count == 0)
            notes->counted = counted && notes->exact;
        if (!add(notes, at))
            return ENOMEM;
        if (notes->counted && ioctl(descriptor, FIONREAD, &notes->waiting[notes->count - 1]) < 0)
            notes->counted = 0; /* it was closed just now */
    }
    return 0;
}

/* Wake whoever waits for the bell, if somebody is due. The lock is held. */
static void ring_where_due(Arrivals *self)
{
    double look = self->gap > self->pace.look ? self->gap : self->pace.look;
    double silent = self->looked_at - self->pace.patience * look;
    int may_be_old = self->looked_at >= self->rung_at + self->pace.longest / RINGS;
    double oldest = may_be_old ? self->looked_at - self->pace.longest : 0;
    for (int i = 0; !self->rung && i < self->size; i++)
        if (is_due(&self->notes[i], silent, oldest)) {
            self->rung = 1;
            self->rung_at = self->looked_at;
            eventfd_write(self->bell, 1);
        }
}

/* Look now, and place what has come in the middle between the last look and this one. The lock is held. */
static void look_again(Arrivals *self)
{
    double before = self->looked_at;
    self->looked_at = now();
    self->gap = self->looked_at - before;
    self->fault = look(self, (before + self->looked_at) / 2, self->size, self->pace.counted);
}

/* The thread: looks while anybody is followed, until it ends. */
static void *watch(void *argument)
{
    Arrivals *self = argument;
    pthread_mutex_lock(&self->lock);
    while (!self->ends && !self->fault) {
        if (!self->following) {
            pthread_cond_wait(&self->changed, &self->lock);
            self->looked_at = now();
            continue;
        }
        double next = self->looked_at + self->pace.look;
        struct timespec until = {.tv_sec = (time_t)next, .tv_nsec = (long)(1e9 * (next - (double)(time_t)next))};
        if (pthread_cond_timedwait(&self->changed, &self->lock, &until) != ETIMEDOUT)
            continue;
        if (now() < self->looked_at + self->pace.look)
            continue; /* somebody else looked */
        look_again(self);
        if (self->fault)
            eventfd_write(self->bell, 1);
        else
            ring_where_due(self);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

/* Begin to watch, on a thread that no signal is sent to. Returns an errno. */
static int begin_to_watch(Arrivals *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int fault = pthread_create(&self->thread, NULL, watch, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    self->watching = !fault;
    if (!fault)
        pthread_setname_np(self->thread, "arrivals");
    return fault;
}

static PyObject *failed(int fault)
{
    if (fault == ENOMEM)
        return PyErr_NoMemory();
    errno = fault;
    return PyErr_SetFromErrno(PyExc_OSError);
}

/* Lock, and return the notes of a registered socket; without them raise a KeyError, return NULL, and leave it unlocked. */
static Notes *locked(Arrivals *self, PyObject *argument)
{
    int descriptor = PyLong_Check(argument) ? (int)PyLong_AsLong(argument) : -1;
    if (PyErr_Occurred())
        return NULL;
    pthread_mutex_lock(&self->lock);
    if (descriptor >= 0 && descriptor < self->size && self->notes[descriptor].registered)
        return &self->notes[descriptor];
    pthread_mutex_unlock(&self->lock);
    PyErr_SetObject(PyExc_KeyError, argument);
    return NULL;
}

static PyObject *unlocked(Arrivals *self)
{
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

/* The lock is held. */
static void set_followed(Arrivals *self, Notes *notes, char followed)
{
    self->following += followed - notes->followed;
    notes->followed = followed;
}

static void end(Arrivals *self)
{
    if (self->watching) {
        pthread_mutex_lock(&self->lock);
        self->ends = 1;
        pthread_cond_signal(&self->changed);
        pthread_mutex_unlock(&self->lock);
        pthread_join(self->thread, NULL); /* it needs nothing that is held here */
    }
    self->watching = 0;
    if (self->epoll >= 0)
        close(self->epoll);
    if (self->bell >= 0)
        close(self->bell);
    self->epoll = self->bell = -1;
}

static PyObject *arrivals_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "", names))
        return NULL;
    Arrivals *self = (Arrivals *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&self->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&self->lock, NULL);
    self->bell = -1;
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (self->epoll >= 0)
        self->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->bell < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *arrivals_close(Arrivals *self, PyObject *Py_UNUSED(nothing))
{
    end(self);
    Py_RETURN_NONE;
}

static void arrivals_dealloc(Arrivals *self)
{
    PyTypeObject *type = Py_TYPE(self);
    end(self);
    for (int i = 0; i < self->size; i++) {
        free(self->notes[i].times);
        free(self->notes[i].waiting);
    }
    free(self->notes);
    free(self->told);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Have a place for the notes of a descriptor. Returns an errno; the lock is held. */
static int make_room(Arrivals *self, int descriptor)
{
    if (descriptor < self->size)
        return 0;
    int size = descriptor + 64;
    Notes *notes = realloc(self->notes, (size_t)size * sizeof *notes);
    if (notes == NULL)
        return ENOMEM;
    memset(notes + self->size, 0, (size_t)(size - self->size) * sizeof *notes);
    self->notes = notes;
    self->size = size;
    return 0;
}

static PyObject *arrivals_register(Arrivals *self, PyObject *argument)
{
    int descriptor = (int)PyLong_AsLong(argument);
    if (PyErr_Occurred())
        return NULL;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = descriptor};
    pthread_mutex_lock(&self->lock);
    int fault = epoll_ctl(self->epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? errno : make_room(self, descriptor);
    if (!fault) {
        Notes *notes = &self->notes[descriptor];
        drop(notes);
        set_followed(self, notes, 0);
        notes->exact = notes->hurries = notes->hurried = 0;
        notes->registered = 1;
    }
    pthread_mutex_unlock(&self->lock);
    return fault ? failed(fault) : Py_NewRef(Py_None);
}

static PyObject *follow(Arrivals *self, PyObject *descriptor, char exact)
{
    Notes *notes = locked(self, descriptor);
    if (notes == NULL)
        return NULL;
    if (!self->following)
        pthread_cond_signal(&self->changed);
    set_followed(self, notes, 1);
    notes->exact = exact;
    return unlocked(self);
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
    Notes *notes = locked(self, descriptor);
    if (notes == NULL)
        return NULL;
    set_followed(self, notes, 0);
    return unlocked(self);
}

static PyObject *look_now(Arrivals *self, PyObject *const *args, Py_ssize_t nargs, int counted)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "a look takes 2 arguments, not %zd", nargs);
    double at = PyFloat_AsDouble(args[0]);
    int most = (int)PyLong_AsLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    pthread_mutex_lock(&self->lock);
    int fault = look(self, at, most, counted);
    pthread_mutex_unlock(&self->lock);
    return fault ? failed(fault) : Py_NewRef(Py_None);
}

static PyObject *arrivals_look(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    return look_now(self, args, nargs, 0);
}

static PyObject *arrivals_look_and_count(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    return look_now(self, args, nargs, 1);
}

static PyObject *arrivals_note(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "note takes 2 arguments, not %zd", nargs);
    double at = PyFloat_AsDouble(args[1]);
    Notes *notes = PyErr_Occurred() ? NULL : locked(self, args[0]);
    if (notes == NULL)
        return NULL;
    notes->counted = 0;
    int added = add(notes, at);
    pthread_mutex_unlock(&self->lock);
    return added ? Py_NewRef(Py_None) : PyErr_NoMemory();
}

static PyObject *arrivals_due(Arrivals *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "due takes 2 arguments, not %zd", nargs);
    double silent = PyFloat_AsDouble(args[0]), oldest = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred())
        return NULL;
    pthread_mutex_lock(&self->lock);
    int count = 0, in_vain = 0, *found = malloc((size_t)(self->size + 1) * sizeof *found);
    for (int i = 0; found != NULL && i < self->size; i++) {
        Notes *notes = &self->notes[i];
        if (!is_due(notes, silent, oldest))
            continue;
        notes->hurries = notes->times[0] >= oldest;
        in_vain += notes->hurried;
        found[count++] = i;
    }
    pthread_mutex_unlock(&self->lock);
    if (found == NULL)
        return PyErr_NoMemory();
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *descriptor = PyLong_FromLong(found[i]);
        if (descriptor == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, descriptor);
    }
    free(found);
    return list == NULL ? NULL : Py_BuildValue("(Ni)", list, in_vain);
}

static PyObject *arrivals_take(Arrivals *self, PyObject *descriptor)
{
    Notes *notes = locked(self, descriptor);
    if (notes == NULL)
        return NULL;
    Notes taken = *notes;
    notes->times = NULL;
    notes->waiting = NULL;
    notes->room = 0;
    drop(notes);
    notes->hurried = notes->hurries;
    notes->hurries = 0;
    pthread_mutex_unlock(&self->lock);

    PyObject *times = PyList_New(taken.count), *waiting = taken.counted ? PyList_New(taken.count) : Py_NewRef(Py_None);
    for (int i = 0; times != NULL && waiting != NULL && i < taken.count; i++) {
        PyObject *at = PyFloat_FromDouble(taken.times[i]), *bytes = taken.counted ? PyLong_FromLong(taken.waiting[i]) : NULL;
        if (at == NULL || (taken.counted && bytes == NULL)) {
            Py_XDECREF(at);
            Py_XDECREF(bytes);
            Py_CLEAR(times);
            break;
        }
        PyList_SET_ITEM(times, i, at);
        if (bytes != NULL)
            PyList_SET_ITEM(waiting, i, bytes);
    }
    free(taken.times);
    free(taken.waiting);
    if (times == NULL || waiting == NULL) {
        Py_XDECREF(times);
        Py_XDECREF(waiting);
        return NULL;
    }
    return Py_BuildValue("(NN)", times, waiting);
}

static PyObject *arrivals_forget(Arrivals *self, PyObject *descriptor)
{
    Notes *notes = locked(self, descriptor);
    if (notes == NULL)
        return NULL;
    drop(notes);
    set_followed(self, notes, 0);
    notes->hurries = notes->hurried = 0;
    return unlocked(self);
}

static PyObject *arrivals_watch(Arrivals *self, PyObject *args)
{
    Pace pace;
    if (!PyArg_ParseTuple(args, "dddp:watch", &pace.look, &pace.patience, &pace.longest, &pace.counted))
        return NULL;
    pthread_mutex_lock(&self->lock);
    self->pace = pace;
    self->rung = 0;
    int fault = 0;
    if (!self->watching) {
        self->looked_at = now();
        fault = self->epoll < 0 ? EBADF : begin_to_watch(self);
    }
    pthread_mutex_unlock(&self->lock);
    return fault ? failed(fault) : Py_NewRef(Py_None);
}

static PyObject *arrivals_fileno(Arrivals *self, PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromLong(self->bell);
}

static PyObject *arrivals_heard(Arrivals *self, PyObject *Py_UNUSED(nothing))
{
    eventfd_t rings;
    eventfd_read(self->bell, &rings);
    pthread_mutex_lock(&self->lock);
    double looked_at = self->looked_at, gap = self->gap;
    int fault = self->fault;
    pthread_mutex_unlock(&self->lock);
    return fault ? failed(fault) : Py_BuildValue("(dd)", looked_at, gap);
}

static PyObject *arrivals_look_too(Arrivals *self, PyObject *Py_UNUSED(nothing))
{
    pthread_mutex_lock(&self->lock);
    if (!self->fault)
        look_again(self);
    int fault = self->fault;
    pthread_mutex_unlock(&self->lock);
    return fault ? failed(fault) : Py_NewRef(Py_None);
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
    {"watch", (PyCFunction)arrivals_watch, METH_VARARGS, NULL},
    {"fileno", (PyCFunction)arrivals_fileno, METH_NOARGS, NULL},
    {"look_too", (PyCFunction)arrivals_look_too, METH_NOARGS, NULL},
    {"heard", (PyCFunction)arrivals_heard, METH_NOARGS, NULL},
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
