/*
 * Meta commands: their flags, and which replies they can have. The rest of their grammar is in
 * text_request.c and text_reply.c.
 */
#include "wire/internal.h"

#define FLAGS_LIMIT  16
#define OPAQUE_LIMIT 32 /* bytes, with the letter O */

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool meta_add_flag(struct wire_text_request *request, struct word word)
{
    char letter = word.text[0];
    uint64_t bit;

    if (!is_letter(letter) || (letter == 'O' && word.length > OPAQUE_LIMIT))
        return false;
    bit = UINT64_C(1) << (letter - 'A');
    if (request->flags & bit || __builtin_popcountll(request->flags) == FLAGS_LIMIT)
        return false;
    request->flags |= bit;
    if (letter == 'q')
        request->quiet = true;
    return true;
}

/* With the flag q one outcome is not answered. Versions of memcached differ on which: here a
 * quiet command can have every reply that some version gives. */
unsigned meta_answers(enum text_class class, bool quiet)
{
    switch (class) {
    case CLASS_MG:
        return KIND_HD | KIND_VA | (quiet ? 0 : KIND_EN);
    case CLASS_MS:
        return KIND_NS | KIND_EX | KIND_NF | (quiet ? 0 : KIND_HD);
    case CLASS_MD:
        return KIND_NF | KIND_EX | KIND_NS | (quiet ? 0 : KIND_HD);
    case CLASS_MA:
        return KIND_HD | KIND_VA | KIND_NF | KIND_NS | KIND_EX;
    default:
        return 0;
    }
}
