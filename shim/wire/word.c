/*
 * The words of text lines. Of a word that comes in pieces only the beginning is kept. That is
 * all of a number or a command name; of a key only the length matters.
 */
#include "wire/internal.h"

/* Servers differ on numbers with more digits than the largest value of the type has. */
#define DIGITS_32 10
#define DIGITS_64 20

void word_add(struct wire_word *token, const uint8_t *bytes, size_t n)
{
    if (token->length < sizeof token->text) {
        size_t room = sizeof token->text - token->length;

        memcpy(token->text + token->length, bytes, n < room ? n : room);
    }
    if (n < (size_t)(UINT16_MAX - token->length))
        token->length = (uint16_t)(token->length + n);
    else
        token->length = UINT16_MAX;
}

struct word word_end(struct wire_word *token, const uint8_t *bytes, size_t n)
{
    struct word word = {(const char *)bytes, n};

    if (token->length > 0) {
        word_add(token, bytes, n);
        word = (struct word){token->text, token->length};
        token->length = 0;
    }
    return word;
}

static bool digits(const char *text, size_t length, uint64_t max, uint64_t *number)
{
    uint64_t sum = 0;

    if (length == 0 || length > (max > UINT32_MAX ? DIGITS_64 : DIGITS_32))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = (unsigned)(unsigned char)text[i] - '0';

        if (digit > 9 || __builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, digit, &sum) || sum > max)
            return false;
    }
    *number = sum;
    return true;
}

bool word_number(struct word word, uint64_t max, uint64_t *number)
{
    return digits(word.text, word.length, max, number);
}

bool word_is_int32(struct word word)
{
    size_t sign = word.length > 0 && word.text[0] == '-';
    uint64_t number;

    return digits(word.text + sign, word.length - sign, INT32_MAX, &number);
}
