/*
 * The count of counted.h.
 */
unsigned long lookups_made __attribute__((visibility("default")));
