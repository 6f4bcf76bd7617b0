/*
 * The counter that counted.h increments.
 */
unsigned long lookups_made __attribute__((visibility("default")));
