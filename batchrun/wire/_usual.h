/* What usual events are made of: the data of a plain event, strict JSON (as dataset rows are, too), and the delta of a block's
 * text. */

#ifndef BATCHRUN_USUAL_H
#define BATCHRUN_USUAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

typedef unsigned char byte;

/* Where a delta belongs: to the block at `index`, if that is a block of this kind. */
typedef struct {
    int kind;
    long index;
} Place;

static const char *const KINDS[][2] = {
    {"\"text_delta\"", "\"text\""},
    {"\"input_json_delta\"", "\"partial_json\""},
    {"\"thinking_delta\"", "\"thinking\""},
};
enum { KINDS_COUNT = sizeof KINDS / sizeof KINDS[0] };

/* Below, `*at` is moved on only where something was found. Behind what is read there is a NUL or a line end, which is in no
 * token, digit or escape and ends every string: nothing reads past it. */

static inline int token(const char **at, const char *word)
{
    const char *p = *at;
    while (*p == ' ')
        p++;
    while (*word)
        if (*p++ != *word++)
            return 0;
    *at = p;
    return 1;
}

/* A few tokens, most often without a blank between them: `usual` is how they look then. */
static inline int tokens(const char **at, const char *const *words, const char *usual, const char *end)
{
    size_t length = strlen(usual);
    if ((size_t)(end - *at) > length && memcmp(*at, usual, length) == 0) {
        *at += length;
        return 1;
    }
    for (; *words; words++)
        if (!token(at, *words))
            return 0;
    return 1;
}

/* The well-formed sequences of the Unicode standard, table 3-7. */
static inline int is_utf8(const byte *p, const byte *end)
{
    while (p < end) {
        byte lead = *p++, low = 0x80, high = 0xBF;
        if (lead < 0x80)
            continue;
        if (lead < 0xC2 || lead > 0xF4)
            return 0;
        if (lead == 0xE0)
            low = 0xA0;
        else if (lead == 0xED)
            high = 0x9F;
        else if (lead == 0xF0)
            low = 0x90;
        else if (lead == 0xF4)
            high = 0x8F;
        int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (end - p < more || *p < low || *p > high)
            return 0;
        for (p++; --more; p++)
            if (*p < 0x80 || *p > 0xBF)
                return 0;
    }
    return 1;
}

static inline long four_hex_digits(const char *p)
{
    long value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value * 16 + (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F')
            value = value * 16 + (c - 'A' + 10);
        else
            return -1;
    }
    return value;
}

static inline char *put(char *to, long code)
{
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xE0 | code >> 12);
        } else {
            *to++ = (char)(0xF0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        }
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
    }
    *to++ = (char)(0x80 | (code & 0x3F));
    return to;
}

/* Decodes the escape behind a backslash; NULL where it is none, or half a surrogate pair. */
static inline char *unescape(const char **at, char *to)
{
    const char *p = *at;
    static const char NAMES[] = "\"\\/bfnrt", MEANT[] = "\"\\/\b\f\n\r\t";
    const char *name = *p ? strchr(NAMES, *p) : NULL;
    if (name != NULL) {
        *to++ = MEANT[name - NAMES];
        *at = p + 1;
        return to;
    }
    long code = *p == 'u' ? four_hex_digits(p + 1) : -1;
    if (code < 0 || (code >= 0xDC00 && code < 0xE000))
        return NULL;
    p += 5;
    if (code >= 0xD800 && code < 0xDC00) {
        long low = p[0] == '\\' && p[1] == 'u' ? four_hex_digits(p + 2) : -1;
        if (low < 0xDC00 || low >= 0xE000)
            return NULL;
        p += 6;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    *at = p;
    return put(to, code);
}

/* Decodes a JSON string from behind its first quote, into no more bytes than it has; NULL where it is not strict. */
static inline char *string(const char **at, char *to)
{
    const char *p = *at, *begin = to;
    byte all = 0;
    for (;;) {
        const char *from = p;
        byte c;
        while ((c = (byte)*p) != '"' && c != '\\' && c >= ' ') {
            all |= c;
            p++;
        }
        if (c < ' ')
            return NULL;
        memcpy(to, from, (size_t)(p - from));
        to += p - from;
        p++;
        if (c == '"')
            break;
        if ((to = unescape(&p, to)) == NULL)
            return NULL;
    }
    if (all >= 0x80 && !is_utf8((const byte *)begin, (const byte *)to))
        return NULL;
    *at = p;
    return to;
}

static inline int digits(const char **at, long *value)
{
    const char *p = *at, *begin;
    while (*p == ' ')
        p++;
    begin = p;
    for (*value = 0; *p >= '0' && *p <= '9' && p - begin < 9; p++)
        *value = *value * 10 + (*p - '0');
    *at = p;
    return p > begin && !(*p >= '0' && *p <= '9') && (*begin != '0' || p - begin == 1);
}

/* Decodes the text of a delta, which is all of a line, and tells where it belongs; NULL where the line is something else. */
static inline char *delta(const char *p, const char *end, char *to, Place *place)
{
    static const char *const BEGIN[] = {"{", "\"type\"", ":", "\"content_block_delta\"", ",", "\"index\"", ":", NULL};
    static const char *const MIDDLE[] = {",", "\"delta\"", ":", "{", "\"type\"", ":", NULL};
    int kind = 0;
    if (!tokens(&p, BEGIN, "{\"type\":\"content_block_delta\",\"index\":", end) || !digits(&p, &place->index))
        return NULL;
    if (!tokens(&p, MIDDLE, ",\"delta\":{\"type\":", end))
        return NULL;
    while (!token(&p, KINDS[kind][0]))
        if (++kind == KINDS_COUNT)
            return NULL;
    place->kind = kind;
    if (!token(&p, ",") || !token(&p, KINDS[kind][1]) || !token(&p, ":") || !token(&p, "\""))
        return NULL;
    to = string(&p, to);
    if (to == NULL || !token(&p, "}") || !token(&p, "}"))
        return NULL;
    while (*p == ' ')
        p++;
    return p == end ? to : NULL;
}

/* What is deeper, longer or more than this is refused, though it be sound. */
enum { DEEPEST = 32, MOST_MEMBERS = 48, LONGEST_NUMBER = 18 };

/* The text of a JSON value; `begin` is NULL where there is none. */
typedef struct {
    const char *begin, *end;
} Slice;

/* What follows moves `*at` past a value, or returns 0. */

static inline void blanks(const char **at)
{
    while (**at == ' ')
        ++*at;
}

static inline int skip_string(const char **at)
{
    const char *p = *at + 1, *begin = p;
    char decoded[4];
    byte all = 0, c;
    if (**at != '"')
        return 0;
    for (;;) {
        while ((c = (byte)*p) != '"' && c != '\\' && c >= ' ') {
            all |= c;
            p++;
        }
        p++;
        if (c == '"')
            break;
        if (c < ' ' || unescape(&p, decoded) == NULL)
            return 0;
    }
    if (all >= 0x80 && !is_utf8((const byte *)begin, (const byte *)p))
        return 0;
    *at = p;
    return 1;
}

static inline int skip_number(const char **at)
{
    const char *p = *at, *begin = p, *whole;
    p += *p == '-';
    for (whole = p; *p >= '0' && *p <= '9';)
        p++;
    if (p == whole || (*whole == '0' && p - whole > 1))
        return 0;
    if (*p == '.') {
        const char *part = ++p;
        while (*p >= '0' && *p <= '9')
            p++;
        if (p == part)
            return 0;
    }
    *at = p;
    return p - begin <= LONGEST_NUMBER;
}

static inline int members(const char **at, const char *const *names, Slice *found, int depth);

static const char *const NO_NAMES[] = {NULL};

static inline int skip_value(const char **at, int depth)
{
    blanks(at);
    switch (**at) {
    case '"':
        return skip_string(at);
    case '{':
        return members(at, NO_NAMES, NULL, depth);
    case '[':
        if (depth == DEEPEST)
            return 0;
        ++*at;
        if (token(at, "]"))
            return 1;
        do {
            if (!skip_value(at, depth + 1))
                return 0;
        } while (token(at, ","));
        return token(at, "]");
    case 't':
        return token(at, "true");
    case 'f':
        return token(at, "false");
    case 'n':
        return token(at, "null");
    default:
        return skip_number(at);
    }
}

/* Goes through an object with no name twice; the members of these names are `found`. Returns 2 where there are others, too. */
static inline int members(const char **at, const char *const *names, Slice *found, int depth)
{
    if (depth == DEEPEST || !token(at, "{"))
        return 0;
    if (token(at, "}"))
        return 1;
    Slice before[MOST_MEMBERS];
    int outcome = 1, count = 0;
    do {
        blanks(at);
        const char *name = *at + 1;
        if (count == MOST_MEMBERS || !skip_string(at))
            return 0;
        size_t length = (size_t)(*at - 1 - name);
        int place = 0;
        if (memchr(name, '\\', length) != NULL || !token(at, ":"))
            return 0;
        for (int other = 0; other < count; other++)
            if ((size_t)(before[other].end - before[other].begin) == length && memcmp(before[other].begin, name, length) == 0)
                return 0;
        before[count].begin = name;
        before[count++].end = name + length;
        blanks(at);
        const char *begin = *at;
        if (!skip_value(at, depth + 1))
            return 0;
        while (names[place] != NULL && (*names[place] != *name || strlen(names[place]) != length || memcmp(names[place], name, length)))
            place++;
        if (names[place] == NULL) {
            outcome = 2;
            continue;
        }
        found[place].begin = begin;
        found[place].end = *at;
    } while (token(at, ","));
    return token(at, "}") ? outcome : 0;
}

static inline int is(const Slice *value, const char *text)
{
    size_t length = strlen(text);
    return value->begin != NULL && (size_t)(value->end - value->begin) == length && memcmp(value->begin, text, length) == 0;
}

static inline int is_nothing(const Slice *value)
{
    return value->begin == NULL || is(value, "null");
}

static inline int is_string(const Slice *value)
{
    return value->begin != NULL && *value->begin == '"';
}

static inline int is_string_or_nothing(const Slice *value)
{
    return is_string(value) || is_nothing(value);
}

static inline int is_object_or_nothing(const Slice *value)
{
    return is_nothing(value) || *value->begin == '{';
}

static inline int small_number(const Slice *value, long *number)
{
    const char *p = value->begin;
    return p != NULL && digits(&p, number) && p == value->end;
}

/* Finds the data of the next event, as `plain_data` does; 0 where it is not plain. */
static inline int plain(const char **at, const char *end, const char **data, const char **data_end)
{
    const char *p = *at, *stop, *last;
    if (end - p >= 6 && memcmp(p, "event:", 6) == 0) {
        p += 6;
        p += *p == ' ';
        if (p == end || *p == 'e' || *p == '\n')
            return 0;
        p = memchr(p, '\n', (size_t)(end - p));
        if (p == NULL)
            return 0;
        p++;
    }
    if (end - p < 5 || memcmp(p, "data:", 5) != 0)
        return 0;
    p += 5;
    p += *p == ' ';
    stop = memchr(p, '\n', (size_t)(end - p));
    if (stop == NULL || stop[1] != '\n')
        return 0;
    *at = stop + 2;
    *data = p;
    *data_end = stop;
    if (*p != '{')
        return stop - p == 6 && memcmp(p, "[DONE]", 6) == 0;
    for (last = stop - 1; *last == ' ';)
        last--;
    return *last == '}';
}

#endif
