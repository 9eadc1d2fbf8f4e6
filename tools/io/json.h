/* json.h - reading JSON that others wrote: cJSON with the error object of ours and with checked numbers. */
#ifndef BITPAIR_JSON_H
#define BITPAIR_JSON_H

#include <cJSON.h>

#include "err.h"

enum { JSON_LARGEST = 64 << 20 }; /* most bytes of one JSON text */

/* Parses text [size] (not NUL-terminated); `name` stands in error messages, `at` is where the text begins in its file.
 * NULL: BP_ERR_FORMAT with the offset. The caller calls cJSON_Delete. */
cJSON *json_parse(const char *text, size_t size, const char *name, uint64_t at, bp_err *e);

/* The same for a whole file. */
cJSON *json_read(const char *path, bp_err *e);

/* Is it a whole number from 0 to 2^53? Then *out. */
bool json_u64(const cJSON *item, uint64_t *out);

/* The text of member `name`, or NULL when it is absent or no string. */
const char *json_text(const cJSON *object, const char *name);

/* Member `name` is true; absent or null: `otherwise`. */
bool json_flag(const cJSON *object, const char *name, bool otherwise);

#endif
