/*
 * The words of text lines. Only the beginning of a word is kept: numbers and the names of
 * commands fit, and of keys nothing but the length matters.
 */
#include "parts.h"

/* Servers differ on numbers with more digits than the type can need. */
#define DIGITS_32 10
#define DIGITS_64 20

void token_add(struct wire_token *token, const uint8_t *bytes, size_t n)
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

bool token_is(const struct wire_token *token, const char *text)
{
    size_t length = strlen(text);

    return token->length == length && memcmp(token->text, text, length) == 0;
}

static bool digits(const char *text, size_t length, uint64_t max, uint64_t *number)
{
    uint64_t sum = 0;

    if (length == 0 || length > (max > UINT32_MAX ? DIGITS_64 : DIGITS_32))
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned digit = (unsigned)(unsigned char)text[i] - '0';

        if (digit > 9 || sum > (max - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *number = sum;
    return true;
}

bool token_number(const struct wire_token *token, uint64_t max, uint64_t *number)
{
    return digits(token->text, token->length, max, number);
}

bool token_is_int32(const struct wire_token *token)
{
    size_t sign = token->length > 0 && token->text[0] == '-';
    uint64_t number;

    return digits(token->text + sign, token->length - sign, INT32_MAX, &number);
}
