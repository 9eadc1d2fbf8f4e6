#include "io/json.h"

#include "io/file.h"

cJSON *json_parse(const char *text, size_t size, const char *name, uint64_t at, bp_err *e) {
    const char *stopped = text;
    if (size > JSON_LARGEST) {
        bp_fail(e, BP_ERR_FORMAT, at, "%s: %zu bytes of JSON are more than this build reads", name, size);
        return NULL;
    }
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &stopped, false);
    if (!root) bp_fail(e, BP_ERR_FORMAT, at + (uint64_t)(stopped - text), "%s: broken JSON", name);
    return root;
}

cJSON *json_read(const char *path, bp_err *e) {
    file_view f;
    if (!file_map(&f, path, e)) return NULL;
    cJSON *root = json_parse((const char *)f.bytes, (size_t)f.size, path, 0, e);
    file_unmap(&f);
    return root;
}

bool json_u64(const cJSON *item, uint64_t *out) {
    if (!cJSON_IsNumber(item)) return false;
    double x = item->valuedouble;
    if (!(x >= 0 && x <= 9007199254740992.0) || (double)(uint64_t)x != x) return false;
    *out = (uint64_t)x;
    return true;
}

const char *json_text(const cJSON *object, const char *name) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

bool json_flag(const cJSON *object, const char *name, bool otherwise) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : otherwise;
}
