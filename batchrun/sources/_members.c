/* The members of one dataset row, a line of JSON. `members.py` says what for; its `by_msgspec` does the same.
 *
 * It gives a line's members or nothing, and may refuse whatever it likes: escapes in names, tags and ids, blanks other than
 * spaces, a member twice, half a surrogate pair, text that is not UTF-8.
 */

#include "../wire/_usual.h"

enum { ID, TOOLS = 4, CLUSTER = 8, TAGS, COUNT };
static const char *const NAMES[] = {"id",          "messages", "prompt",   "system",  "tools",
                                    "tool_choice", "params",   "expected", "cluster", "tags"};
static const char *const BEGINS[] = {"\"", "[", "\"", "\"[", "[", "{", "{", "[{", "\"", "["};

/* Moves on over the plain inside of a string, not beyond `end`; `*all` gathers the bits of its bytes. */
static const char *plain_text(const char *p, const char *end, byte *all)
{
    enum { STEP = 32 };
    while (end - p >= STEP) {
        byte ends = 0, bits = 0;
        for (int i = 0; i < STEP; i++) { /* a vector or two */
            byte c = (byte)p[i];
            ends |= (c < ' ') | (c == '"') | (c == '\\');
            bits |= c;
        }
        if (ends)
            break;
        *all |= bits;
        p += STEP;
    }
    for (byte c; (c = (byte)*p) != '"' && c != '\\' && c >= ' '; p++)
        *all |= c;
    return p;
}

static int skip_text(const char **at, const char *end)
{
    const char *begin = *at + 1, *p = begin;
    char decoded[4];
    byte all = 0;
    for (;;) {
        p = plain_text(p, end, &all);
        if (*p++ == '"')
            break;
        if (p[-1] != '\\' || unescape(&p, decoded) == NULL)
            return 0;
    }
    if (all >= 0x80 && !is_utf8((const byte *)begin, (const byte *)p))
        return 0;
    *at = p;
    return 1;
}

static int skip_any_number(const char **at)
{
    const char *p = *at, *whole = p + (*p == '-'), *part;
    for (p = whole; *p >= '0' && *p <= '9';)
        p++;
    if (p == whole || (*whole == '0' && p - whole > 1))
        return 0;
    if (*p == '.') {
        for (part = ++p; *p >= '0' && *p <= '9';)
            p++;
        if (p == part)
            return 0;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        p += *p == '+' || *p == '-';
        for (part = p; *p >= '0' && *p <= '9';)
            p++;
        if (p == part)
            return 0;
    }
    *at = p;
    return 1;
}

/* Moves on past a value of strict JSON, in which a name may be told twice; 0 where it is none, or too deep. */
static int skip_any(const char **at, const char *end, int depth)
{
    blanks(at);
    char first = **at, last = first == '{' ? '}' : ']';
    if (first == '"')
        return skip_text(at, end);
    if (first != '{' && first != '[')
        return first == 't' ? token(at, "true") : first == 'f' ? token(at, "false") : first == 'n' ? token(at, "null") : skip_any_number(at);
    if (depth == DEEPEST)
        return 0;
    ++*at;
    blanks(at);
    if (**at == last) {
        ++*at;
        return 1;
    }
    do {
        blanks(at);
        if (first == '{' && (**at != '"' || !skip_text(at, end) || !token(at, ":")))
            return 0;
        if (!skip_any(at, end, depth + 1))
            return 0;
        blanks(at);
    } while (*(*at)++ == ',');
    return (*at)[-1] == last;
}

static int place_of(const char *name, size_t length)
{
    int place = 0;
    while (place < COUNT && (strlen(NAMES[place]) != length || memcmp(NAMES[place], name, length) != 0))
        place++;
    return place;
}

/* Finds the members of a line, all of them at their places; 0 where it has others, or is not strict. */
static int find(const char *p, const char *end, PyObject *tools, Slice *found)
{
    const char *known = PyBytes_AS_STRING(tools);
    Py_ssize_t known_size = PyBytes_GET_SIZE(tools);
    blanks(&p);
    if (*p++ != '{')
        return 0;
    do {
        byte all = 0;
        blanks(&p);
        if (*p++ != '"')
            return 0;
        const char *name = p;
        p = plain_text(p, end, &all);
        int place = *p == '"' ? place_of(name, (size_t)(p - name)) : COUNT;
        if (place == COUNT || found[place].begin != NULL)
            return 0;
        p++;
        if (!token(&p, ":"))
            return 0;
        blanks(&p);
        found[place].begin = p;
        if (place == TOOLS && known_size && end - p > known_size && memcmp(p, known, (size_t)known_size) == 0)
            p += known_size; /* a list ends where it ends, so the same text is the same list */
        else if (!skip_any(&p, end, 0))
            return 0;
        found[place].end = p;
        blanks(&p);
    } while (*p++ == ',');
    if (p[-1] != '}')
        return 0;
    while (*p == ' ' || *p == '\t' || *p == '\r')
        p++;
    return p == end;
}

/* Below, NULL without an error is what is refused. */

/* Returns the text of a string without escapes; `*at` is at its first quote, and behind its last one then. */
static PyObject *plain_string(const char **at, const char *end)
{
    const char *begin = *at + 1, *p;
    byte all = 0;
    if (**at != '"' || *(p = plain_text(begin, end, &all)) != '"')
        return NULL;
    *at = p + 1;
    return PyUnicode_DecodeUTF8(begin, p - begin, NULL);
}

static PyObject *strings(const Slice *list)
{
    const char *p = list->begin + 1;
    PyObject *found = PyList_New(0), *told = NULL;
    if (found == NULL)
        return NULL;
    blanks(&p);
    if (*p != ']')
        do {
            blanks(&p);
            PyObject *text = plain_string(&p, list->end);
            int failed = text == NULL || PyList_Append(found, text) < 0;
            Py_XDECREF(text);
            if (failed)
                goto done;
            blanks(&p);
        } while (*p++ == ',');
    told = PyList_AsTuple(found);
done:
    Py_DECREF(found);
    return told;
}

static PyObject *value_of(int place, const Slice *slice, PyObject *tools)
{
    if (is_nothing(slice))
        return place == TAGS ? PyTuple_New(0) : Py_NewRef(Py_None);
    if (strchr(BEGINS[place], *slice->begin) == NULL)
        return NULL;
    Py_ssize_t size = slice->end - slice->begin;
    const char *p = slice->begin;
    switch (place) {
    case ID:
    case CLUSTER:
        return plain_string(&p, slice->end);
    case TAGS:
        return strings(slice);
    case TOOLS:
        if (size == PyBytes_GET_SIZE(tools) && memcmp(p, PyBytes_AS_STRING(tools), (size_t)size) == 0)
            return Py_NewRef(tools);
        /* fall through */
    default:
        return PyBytes_FromStringAndSize(p, size);
    }
}

static PyObject *members_of(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "a line and the tools of the line before it, both bytes");
        return NULL;
    }
    Slice found[COUNT] = {{NULL, NULL}};
    const char *line = PyBytes_AS_STRING(args[0]);
    if (!find(line, line + PyBytes_GET_SIZE(args[0]), args[1], found))
        Py_RETURN_NONE;
    PyObject *told = PyTuple_New(COUNT);
    if (told == NULL)
        return NULL;
    for (int place = 0; place < COUNT; place++) {
        PyObject *value = value_of(place, &found[place], args[1]);
        if (value == NULL) {
            Py_DECREF(told);
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_NONE;
        }
        PyTuple_SET_ITEM(told, place, value);
    }
    return told;
}

static PyMethodDef METHODS[] = {
    {"members_of", (PyCFunction)(void (*)(void))members_of, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_members", .m_methods = METHODS};

PyMODINIT_FUNC PyInit__members(void)
{
    return PyModuleDef_Init(&MODULE);
}
