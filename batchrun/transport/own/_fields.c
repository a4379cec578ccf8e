/* The fields of an HTTP head, as the parser tells them; `fields.py` has the same in Python. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *values; /* dict of str by str, names in lower case */
    Py_ssize_t count, size, most;
    char closed;
} Fields;

static PyObject *lowered(const unsigned char *name, Py_ssize_t length)
{
    Py_UCS1 small[128], *text = length <= (Py_ssize_t)sizeof small ? small : PyMem_Malloc((size_t)length);
    if (text == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t place = 0; place < length; place++)
        text[place] = name[place] >= 'A' && name[place] <= 'Z' ? name[place] + ('a' - 'A') : name[place];
    PyObject *found = PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, text, length);
    if (text != small)
        PyMem_Free(text);
    return found;
}

static PyObject *stripped(const char *text, Py_ssize_t length)
{
    const char *end = text + length;
    while (text < end && (*text == ' ' || *text == '\t'))
        text++;
    while (text < end && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return PyUnicode_DecodeLatin1(text, end - text, NULL);
}

/* Keeps a field, behind those of the same name that came before. */
static int keep(PyObject *values, PyObject *name, PyObject *value)
{
    Py_ssize_t before = PyDict_GET_SIZE(values);
    PyObject *kept = name == NULL || value == NULL ? NULL : PyDict_SetDefault(values, name, value);
    int done = kept != NULL;
    if (done && PyDict_GET_SIZE(values) == before) {
        PyObject *both = PyUnicode_FromFormat("%U, %U", kept, value);
        done = both != NULL && PyDict_SetItem(values, name, both) == 0;
        Py_XDECREF(both);
    }
    Py_XDECREF(name);
    Py_XDECREF(value);
    return done;
}

PyDoc_STRVAR(add_doc, "add($self, name, value, /)\n--\n\nTake the next field.");

static PyObject *add(Fields *self, PyObject *const *given, Py_ssize_t many)
{
    if (many != 2 || !PyBytes_Check(given[0]) || !PyBytes_Check(given[1]))
        return PyErr_Format(PyExc_TypeError, "a field is a name and a value, both bytes");
    if (!self->closed) {
        Py_ssize_t name = PyBytes_GET_SIZE(given[0]), value = PyBytes_GET_SIZE(given[1]);
        self->size += name + value + 4;
        if (self->count++ < self->most && !keep(self->values, lowered((unsigned char *)PyBytes_AS_STRING(given[0]), name),
                                                stripped(PyBytes_AS_STRING(given[1]), value)))
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *new(PyTypeObject *type, PyObject *given, PyObject *Py_UNUSED(named))
{
    Py_ssize_t most;
    if (!PyArg_ParseTuple(given, "n:Fields", &most))
        return NULL;
    Fields *self = (Fields *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->most = most;
    if ((self->values = PyDict_New()) == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void dealloc(Fields *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->values);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef FIELDS_METHODS[] = {{"add", (PyCFunction)(void (*)(void))add, METH_FASTCALL, add_doc}, {NULL, NULL, 0, NULL}};
static PyMemberDef FIELDS_MEMBERS[] = {
    {"values", T_OBJECT, offsetof(Fields, values), READONLY, NULL}, {"count", T_PYSSIZET, offsetof(Fields, count), READONLY, NULL},
    {"size", T_PYSSIZET, offsetof(Fields, size), READONLY, NULL},   {"closed", T_BOOL, offsetof(Fields, closed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot FIELDS_SLOTS[] = {
    {Py_tp_doc, "The fields of one HTTP head, of which so many are kept."},
    {Py_tp_new, new},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, FIELDS_METHODS},
    {Py_tp_members, FIELDS_MEMBERS},
    {0, NULL},
};
static PyType_Spec FIELDS = {"batchrun.transport.own._fields.Fields", sizeof(Fields), 0, Py_TPFLAGS_DEFAULT, FIELDS_SLOTS};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&FIELDS);
    int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_type}, {0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_fields", .m_slots = SLOTS};

PyMODINIT_FUNC PyInit__fields(void)
{
    return PyModuleDef_Init(&MODULE);
}
