/* An answer that grows by the usual events of a Messages stream. `answer.py` says what for; `sse.py` and `usual.py` have the
 * rules of a plain event and of a usual one.
 *
 * It knows an event exactly, or takes nothing of it and nothing more: what it has is then taken over by those who know all
 * of them. So it may refuse whatever it likes, and refuses what is rare: carriage returns, escapes in names, numbers with
 * exponents, half a surrogate pair, text that is not UTF-8.
 */

#include "_usual.h"
#include <structmember.h>

enum { MOST_BLOCKS = 256 };

/* The kinds of blocks, each at the place that its deltas have in `KINDS`. */
static const char *const BLOCKS[] = {"text", "tool_use", "thinking"};
enum { CALL = 1 };

/* A content block. `kind` is its place in `BLOCKS`; `id` and `name` are a tool call's. */
typedef struct {
    int kind, stopped;
    long index;
    PyObject *id, *name;
    char *text;
    size_t size, room;
} Block;

enum { INPUT, OUTPUT, READ, WRITTEN, COUNTS_OF_USAGE, FOR_5M = COUNTS_OF_USAGE, FOR_1H, COUNTS };

/* `rest` is what has not ended, `searched` how much of it has no end. Objects are NULL where nothing was told. */
typedef struct {
    PyObject_HEAD
    Block *blocks;
    Py_ssize_t count, events;
    char *rest;
    size_t size, room, searched;
    PyObject *id, *model, *stop_reason, *stop_sequence, *usages, *tier;
    long counts[COUNTS]; /* from the usages, plus one: 0 is none; for as long as they are `plain` */
    char refused, seen, started, called, closed, not_plain;
} Answer;

/* Below, UNUSUAL is what ends this part of an answer's life, FAILED a Python error. */
typedef enum { FAILED = -1, UNUSUAL, TAKEN } Outcome;

/* Below, 0 is a Python error. What is kept has been found sound before, so that an event is taken whole or not at all. */

/* Puts the decoded text of a string into `*to`, in place of what was there; null changes nothing. */
static int keep_string(PyObject **to, const Slice *value)
{
    if (is_nothing(value))
        return 1;
    char small[256], *decoded = small;
    const char *p = value->begin + 1;
    size_t length = (size_t)(value->end - value->begin);
    if (length > sizeof small && (decoded = PyMem_Malloc(length)) == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    PyObject *text = PyUnicode_DecodeUTF8(decoded, string(&p, decoded) - decoded, NULL);
    if (decoded != small)
        PyMem_Free(decoded);
    if (text == NULL)
        return 0;
    Py_XSETREF(*to, text);
    return 1;
}

/* Lays counts over those there were; 0 where one is no small number. Null counts nothing. */
static int lay_counts(long *counts, const Slice *told, int many)
{
    long number;
    for (int place = 0; place < many; place++)
        if (!is_nothing(&told[place])) {
            if (!small_number(&told[place], &number))
                return 0;
            counts[place] = number + 1;
        }
    return 1;
}

/* Lays a usage that tells what the API itself tells over those before, as `merge_usage` does; 0 where it is another. */
static int lay_usage(Answer *self, const char *p)
{
    static const char *const NAMES[] = {"input_tokens",   "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
                                        "cache_creation", "service_tier",  "inference_geo",           NULL};
    static const char *const LIFETIMES[] = {"ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", NULL};
    Slice told[7] = {{NULL, NULL}}, lifetimes[2] = {{NULL, NULL}};
    const Slice *written = &told[COUNTS_OF_USAGE], *tier = &told[COUNTS_OF_USAGE + 1];
    if (members(&p, NAMES, told, 1) != 1 || !lay_counts(self->counts, told, COUNTS_OF_USAGE) || !is_string_or_nothing(tier))
        return 0;
    if (!is_nothing(written)) {
        p = written->begin;
        self->counts[FOR_5M] = self->counts[FOR_1H] = 0;
        if (!members(&p, LIFETIMES, lifetimes, 2) || !lay_counts(self->counts + FOR_5M, lifetimes, 2))
            return 0;
    }
    return keep_string(&self->tier, tier);
}

static int keep_usage(Answer *self, const Slice *value)
{
    if (is_nothing(value))
        return 1;
    if (self->usages == NULL && (self->usages = PyList_New(0)) == NULL)
        return 0;
    PyObject *text = PyBytes_FromStringAndSize(value->begin, value->end - value->begin);
    int kept = text != NULL && PyList_Append(self->usages, text) == 0;
    Py_XDECREF(text);
    self->not_plain |= kept && !lay_usage(self, value->begin);
    return kept && !PyErr_Occurred();
}

static int grow(char **bytes, size_t *room, size_t wanted)
{
    if (wanted <= *room)
        return 1;
    size_t more = wanted < 256 ? 256 : wanted + wanted / 2;
    char *grown = PyMem_Realloc(*bytes, more);
    if (grown == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    *bytes = grown;
    *room = more;
    return 1;
}

/* The block that deltas with this index belong to: the last that began with it. */
static Block *block_at(const Answer *self, long index)
{
    for (Py_ssize_t place = self->count; place--;)
        if (self->blocks[place].index == index)
            return &self->blocks[place];
    return NULL;
}

static int append_text(Block *block, const Slice *value)
{
    const char *p = value->begin + 1;
    if (!grow(&block->text, &block->room, block->size + (size_t)(value->end - value->begin)))
        return 0;
    block->size = (size_t)(string(&p, block->text + block->size) - block->text);
    return 1;
}

/* A delta as it usually is, in one go: its text is decoded where it most likely belongs. */
static Outcome take_delta(Answer *self, const char *data, const char *end)
{
    if (self->count == 0)
        return UNUSUAL;
    Block *last = &self->blocks[self->count - 1];
    Place place;
    if (!grow(&last->text, &last->room, last->size + (size_t)(end - data)))
        return FAILED;
    char *from = last->text + last->size, *to = delta(data, end, from, &place);
    if (to == NULL)
        return UNUSUAL;
    Block *block = last->index == place.index ? last : block_at(self, place.index);
    if (block == NULL || block->kind != place.kind)
        return UNUSUAL;
    if (block != last) {
        if (!grow(&block->text, &block->room, block->size + (size_t)(to - from)))
            return FAILED;
        memcpy(block->text + block->size, from, (size_t)(to - from));
    }
    block->size += (size_t)(to - from);
    return TAKEN;
}

enum { TYPE, INDEX, MESSAGE, CONTENT_BLOCK, DELTA, USAGE, ERROR, CHOICES, OBJECT, METRICS, FIELDS };
static const char *const EVENT[] = {"type",  "index", "message", "content_block", "delta",
                                    "usage", "error", "choices", "object",        "amazon-bedrock-invocationMetrics",
                                    NULL};

static Outcome take_start(Answer *self, const Slice *event)
{
    static const char *const NAMES[] = {"id", "model", "usage", NULL};
    Slice message[3] = {{NULL, NULL}};
    const char *p = event[MESSAGE].begin;
    if (self->started || p == NULL || !members(&p, NAMES, message, 1))
        return UNUSUAL;
    if (!is_string_or_nothing(&message[0]) || !is_string_or_nothing(&message[1]) || !is_object_or_nothing(&message[2]))
        return UNUSUAL;
    self->started = 1;
    if (keep_string(&self->id, &message[0]) && keep_string(&self->model, &message[1]) && keep_usage(self, &message[2]))
        return TAKEN;
    return FAILED;
}

static Outcome take_block(Answer *self, const Slice *event)
{
    static const char *const NAMES[] = {"type", "text", "partial_json", "thinking", "id", "name", "input", NULL};
    Slice given[7] = {{NULL, NULL}};
    const char *p = event[CONTENT_BLOCK].begin;
    Block block = {0};
    if (self->count == MOST_BLOCKS || p == NULL || !members(&p, NAMES, given, 1) || !small_number(&event[INDEX], &block.index))
        return UNUSUAL;
    if (!is_string(&given[0]))
        return UNUSUAL;
    const Slice kind = {given[0].begin + 1, given[0].end - 1};
    while (!is(&kind, BLOCKS[block.kind]))
        if (++block.kind == KINDS_COUNT)
            return UNUSUAL;
    const Slice *text = &given[1 + block.kind], *id = &given[4], *name = &given[5], *input = &given[6];
    int is_call = block.kind == CALL, kept;
    if (is_call && (!is_string(id) || !is_string(name) || is(name, "\"\"") || (input->begin != NULL && !is(input, "{}"))))
        return UNUSUAL;
    if (!is_call && text->begin != NULL && !is_string(text))
        return UNUSUAL;
    Block *blocks = PyMem_Realloc(self->blocks, ((size_t)self->count + 1) * sizeof(Block));
    if (blocks == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    self->blocks = blocks;
    if (is_call)
        kept = keep_string(&block.id, id) && keep_string(&block.name, name);
    else
        kept = text->begin == NULL || append_text(&block, text);
    self->blocks[self->count++] = block;
    self->called |= is_call;
    return kept ? TAKEN : FAILED;
}

static Outcome take_other_delta(Answer *self, const Slice *event)
{
    static const char *const NAMES[] = {"type", "text", "partial_json", "thinking", NULL};
    static const char *const SILENT[] = {"\"signature_delta\"", "\"citations_delta\"", "\"compaction_delta\"", NULL};
    Slice told[4] = {{NULL, NULL}};
    const char *p = event[DELTA].begin;
    long index;
    int kind = 0;
    if (p == NULL || !members(&p, NAMES, told, 1) || !small_number(&event[INDEX], &index))
        return UNUSUAL;
    for (const char *const *silent = SILENT; *silent != NULL; silent++)
        if (is(&told[0], *silent))
            return TAKEN;
    while (!is(&told[0], KINDS[kind][0]))
        if (++kind == KINDS_COUNT)
            return UNUSUAL;
    Block *block = block_at(self, index);
    if (block == NULL || block->kind != kind || !is_string(&told[1 + kind]))
        return UNUSUAL;
    return append_text(block, &told[1 + kind]) ? TAKEN : FAILED;
}

static Outcome take_block_stop(Answer *self, const Slice *event)
{
    long index;
    Block *block = small_number(&event[INDEX], &index) ? block_at(self, index) : NULL;
    if (block == NULL)
        return UNUSUAL;
    block->stopped = 1;
    return TAKEN;
}

static Outcome take_message_delta(Answer *self, const Slice *event)
{
    static const char *const NAMES[] = {"stop_reason", "stop_sequence", NULL};
    Slice told[2] = {{NULL, NULL}};
    const char *p = event[DELTA].begin;
    if (p == NULL || !members(&p, NAMES, told, 1) || is(&told[0], "\"\""))
        return UNUSUAL;
    if (!is_string_or_nothing(&told[0]) || !is_string_or_nothing(&told[1]) || !is_object_or_nothing(&event[USAGE]))
        return UNUSUAL;
    if (keep_string(&self->stop_reason, &told[0]) && keep_string(&self->stop_sequence, &told[1]) && keep_usage(self, &event[USAGE]))
        return TAKEN;
    return FAILED;
}

/* Applies one event's data, which a line end follows. */
static Outcome take_data(Answer *self, const char *data, const char *end)
{
    Slice event[FIELDS] = {{NULL, NULL}};
    Outcome outcome = take_delta(self, data, end);
    if (outcome != UNUSUAL) {
        self->events += outcome == TAKEN;
        return outcome;
    }
    if (!members(&data, EVENT, event, 0))
        return UNUSUAL;
    blanks(&data);
    if (data != end)
        return UNUSUAL;
    if (is(&event[TYPE], "\"ping\""))
        return TAKEN;
    if (is(&event[TYPE], "\"content_block_delta\""))
        outcome = take_other_delta(self, event);
    else if (is(&event[TYPE], "\"content_block_stop\""))
        outcome = take_block_stop(self, event);
    else if (!is_nothing(&event[ERROR]) || event[CHOICES].begin != NULL || !is_nothing(&event[OBJECT]))
        return UNUSUAL;
    else if (is(&event[TYPE], "\"content_block_start\""))
        outcome = take_block(self, event);
    else if (is(&event[TYPE], "\"message_start\""))
        outcome = take_start(self, event);
    else if (is(&event[TYPE], "\"message_delta\""))
        outcome = take_message_delta(self, event);
    else if (is(&event[TYPE], "\"message_stop\"") && is_nothing(&event[USAGE]) && is_nothing(&event[METRICS])) {
        self->closed = 1;
        outcome = TAKEN;
    }
    self->events += outcome == TAKEN;
    return outcome;
}

/* Applies every event between `from` and `end` that has ended, the first of which begins at `*begin`. */
static Outcome take_events(Answer *self, const char **begin, const char *from, const char *end)
{
    Outcome outcome = TAKEN;
    while (outcome == TAKEN && !self->closed && (from = memchr(from, '\n', (size_t)(end - from))) != NULL && ++from < end) {
        const char *p = *begin, *data, *data_end;
        if (*from != '\n')
            continue;
        outcome = plain(&p, ++from, &data, &data_end) ? take_data(self, data, data_end) : UNUSUAL;
        if (outcome == TAKEN) {
            self->seen = 1;
            *begin = from;
        }
    }
    return outcome;
}

PyDoc_STRVAR(feed_doc, "feed($self, chunk, /)\n--\n\n"
                       "Take the next bytes; False where they are not usual, and then they and all that follow are not taken.");

static PyObject *feed(Answer *self, PyObject *chunk)
{
    if (!PyBytes_Check(chunk))
        return PyErr_Format(PyExc_TypeError, "a chunk is bytes, not %.100s", Py_TYPE(chunk)->tp_name);
    const char *begin = PyBytes_AS_STRING(chunk);
    size_t length = (size_t)PyBytes_GET_SIZE(chunk), before = self->size;
    int refused = self->refused || memchr(begin, '\r', length) != NULL;
    if (before || refused) {
        if (!grow(&self->rest, &self->room, before + length))
            return NULL;
        memcpy(self->rest + before, begin, length);
        self->size = length += before;
        begin = self->rest;
    }
    if (!refused && !self->closed) {
        const char *end = begin + length;
        Outcome outcome = take_events(self, &begin, begin + self->searched, end);
        if (outcome == FAILED)
            return NULL;
        refused = outcome == UNUSUAL;
        length = (size_t)(end - begin);
        if (!grow(&self->rest, &self->room, length))
            return NULL;
        if (length)
            memmove(self->rest, begin, length);
        self->size = length;
        self->searched = length ? length - 1 : 0;
    }
    self->refused = (char)refused;
    return PyBool_FromLong(!refused);
}

PyDoc_STRVAR(blocks_doc, "blocks($self, /)\n--\n\nReturn (kind, id, name, text, index, stopped) of each block.");

static PyObject *blocks(Answer *self, PyObject *Py_UNUSED(none))
{
    PyObject *found = PyList_New(self->count);
    for (Py_ssize_t place = 0; found != NULL && place < self->count; place++) {
        const Block *block = &self->blocks[place];
        PyObject *text = PyUnicode_DecodeUTF8(block->text, (Py_ssize_t)block->size, NULL);
        PyObject *told = text == NULL ? NULL
                                      : Py_BuildValue("(sOONlO)", BLOCKS[block->kind], block->id == NULL ? Py_None : block->id,
                                                      block->name == NULL ? Py_None : block->name, text, block->index,
                                                      block->stopped ? Py_True : Py_False);
        if (told == NULL)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, place, told);
    }
    return found;
}

/* The merged usage, where it tells what the API itself tells; else None. */
static PyObject *usage(Answer *self, void *Py_UNUSED(none))
{
    if (self->not_plain || self->usages == NULL)
        Py_RETURN_NONE;
    PyObject *told = PyTuple_New(COUNTS + 1);
    for (int place = 0; told != NULL && place < COUNTS; place++) {
        PyObject *count = self->counts[place] ? PyLong_FromLong(self->counts[place] - 1) : Py_NewRef(Py_None);
        if (count == NULL)
            Py_CLEAR(told);
        else
            PyTuple_SET_ITEM(told, place, count);
    }
    if (told != NULL)
        PyTuple_SET_ITEM(told, COUNTS, Py_NewRef(self->tier == NULL ? Py_None : self->tier));
    return told;
}

static PyObject *rest(Answer *self, void *Py_UNUSED(none))
{
    return PyBytes_FromStringAndSize(self->rest, (Py_ssize_t)self->size);
}

static void dealloc(Answer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t place = 0; place < self->count; place++) {
        Py_XDECREF(self->blocks[place].id);
        Py_XDECREF(self->blocks[place].name);
        PyMem_Free(self->blocks[place].text);
    }
    PyMem_Free(self->blocks);
    PyMem_Free(self->rest);
    Py_XDECREF(self->id);
    Py_XDECREF(self->model);
    Py_XDECREF(self->stop_reason);
    Py_XDECREF(self->stop_sequence);
    Py_XDECREF(self->usages);
    Py_XDECREF(self->tier);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(surely_strict_doc, "surely_strict(text, /)\n--\n\n"
                                "Tell whether a text is surely an object of strict JSON, no name in it twice and no character told\n"
                                "by its number; False may be either.");

static PyObject *surely_strict(PyObject *Py_UNUSED(module), PyObject *text)
{
    Py_ssize_t length;
    if (!PyUnicode_Check(text))
        return PyErr_Format(PyExc_TypeError, "a text is str, not %.100s", Py_TYPE(text)->tp_name);
    const char *p = PyUnicode_AsUTF8AndSize(text, &length), *begin = p;
    if (p == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) /* it has half a surrogate pair */
        PyErr_Clear();
    else if (p == NULL)
        return NULL;
    return PyBool_FromLong(p != NULL && strstr(p, "\\u") == NULL && members(&p, NO_NAMES, NULL, 0) && p == begin + length);
}

static PyMethodDef ANSWER_METHODS[] = {
    {"feed", (PyCFunction)feed, METH_O, feed_doc},
    {"blocks", (PyCFunction)blocks, METH_NOARGS, blocks_doc},
    {NULL, NULL, 0, NULL},
};
#define MEMBER(name, type) {#name, type, offsetof(Answer, name), READONLY, NULL}
static PyMemberDef ANSWER_MEMBERS[] = {
    MEMBER(events, T_PYSSIZET), MEMBER(seen, T_BOOL),  MEMBER(started, T_BOOL),       MEMBER(called, T_BOOL),
    MEMBER(closed, T_BOOL),     MEMBER(id, T_OBJECT),  MEMBER(model, T_OBJECT),       MEMBER(stop_reason, T_OBJECT),
    MEMBER(stop_sequence, T_OBJECT), MEMBER(usages, T_OBJECT), {NULL, 0, 0, 0, NULL},
};
static PyGetSetDef ANSWER_GETTERS[] = {
    {"rest", (getter)rest, NULL, NULL, NULL},
    {"usage", (getter)usage, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot ANSWER_SLOTS[] = {
    {Py_tp_doc, "An answer as far as it came in usual events."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, ANSWER_METHODS},
    {Py_tp_members, ANSWER_MEMBERS},
    {Py_tp_getset, ANSWER_GETTERS},
    {0, NULL},
};
static PyType_Spec ANSWER = {"batchrun.wire._answer.Answer", sizeof(Answer), 0, Py_TPFLAGS_DEFAULT, ANSWER_SLOTS};

static int add_type(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&ANSWER);
    int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot SLOTS[] = {{Py_mod_exec, add_type}, {0, NULL}};
static PyMethodDef METHODS[] = {{"surely_strict", surely_strict, METH_O, surely_strict_doc}, {NULL, NULL, 0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "_answer", .m_methods = METHODS, .m_slots = SLOTS};

PyMODINIT_FUNC PyInit__answer(void)
{
    return PyModuleDef_Init(&MODULE);
}
