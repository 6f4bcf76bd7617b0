/*
 * Texts that other users choose: names of files, processes and servers. They must not control
 * the terminal.
 */
#ifndef MCPOOL_PRINTABLE_H
#define MCPOOL_PRINTABLE_H

/* Replaces by '?' each byte of TEXT that is not printable ASCII. */
void make_printable(char *text);

/* Also replaces quotes and backslashes, which could end a string in JSON. */
void make_quotable(char *text);

#endif
