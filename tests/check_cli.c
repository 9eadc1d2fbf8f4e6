/* The command line as a user meets it: exit codes, messages, what goes to which stream. Runs the `bitpair` beside this
 * program. */
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "io/json.h"

static char folder[] = "/tmp/bitpair-check-cli-XXXXXX";
static char tool[512], out[1 << 20], err[1 << 16];

static void read_back(const char *name, char *to, size_t capacity) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(to, 1, capacity - 1, f) : 0;
    to[n] = 0;
    if (f) fclose(f);
}

/* Runs `before bitpair arguments`; fills out and err; returns the exit code. */
static int run_after(const char *before, const char *arguments) {
    char command[4096];
    snprintf(command, sizeof command, "%s '%s' %s >%s/out 2>%s/err", before, tool, arguments, folder, folder);
    int status = system(command);
    read_back("out", out, sizeof out);
    read_back("err", err, sizeof err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run(const char *arguments) { return run_after("", arguments); }

/* One clear line on stderr, nothing on stdout. */
static void expect_failure(const char *arguments, int code, const char *part) {
    int rc = run(arguments);
    CHECK(rc == code, "'%s' ends with %d: %s", arguments, rc, err);
    CHECK(strstr(err, part), "'%s' says: %s", arguments, err);
    CHECK(!out[0], "'%s' prints: %s", arguments, out);
    if (code == 1) CHECK(strchr(err, '\n') == err + strlen(err) - 1, "'%s' says more than a line: %s", arguments, err);
}

static void check_help(void) {
    static const char *const COMMANDS[] = {"chat", "run", "compress", "eval", "bench", "inspect", "verify", "tokenize"};
    char arguments[64], help[16384];
    CHECK(run("--version") == 0 && strncmp(out, "bitpair 0.", 10) == 0 && !err[0], "%s", out);
    CHECK(run("--help") == 0 && !err[0], "%s", err);
    for (size_t i = 0; i < sizeof COMMANDS / sizeof COMMANDS[0]; i++) {
        CHECK(run("--help") == 0 && strstr(out, COMMANDS[i]), "%s is not in --help", COMMANDS[i]);
        snprintf(arguments, sizeof arguments, "%s --help", COMMANDS[i]);
        CHECK(run(arguments) == 0 && strstr(out, "Usage: bitpair") && strstr(out, "Examples:") && !err[0], "%s: %s%s",
              arguments, out, err);
        snprintf(help, sizeof help, "%.16000s", out);
        snprintf(arguments, sizeof arguments, "help %s", COMMANDS[i]);
        CHECK(run(arguments) == 0 && strcmp(out, help) == 0, "%s: %s", arguments, out);
    }
}

/* Every command and option that --help shows is in the manual page and in what each shell completes. */
static void check_manual(void) {
    static const char *const PRINTS[] = {"man", "completions bash", "completions zsh", "completions fish"};
    static char help[1 << 14];
    char word[64], command[512];
    CHECK(run("tune --help") == 0, "%s", err);
    snprintf(help, sizeof help, "%.16000s", out);
    for (size_t i = 0; i < sizeof PRINTS / sizeof *PRINTS; i++) {
        CHECK(run(PRINTS[i]) == 0 && strstr(out, "generate") && !err[0], "%s: %s", PRINTS[i], err);
        for (char *at = out; i == 0 && *at; at++) /* roff writes \\- for - */
            if (at[0] == '\\' && at[1] == '-') memmove(at, at + 1, strlen(at));
        size_t found = 0;
        for (const char *at = help; (at = strstr(at, " --")); at += 3) {
            if (sscanf(at + 3, "%63[a-z-]", word) != 1 || strcmp(word, "help") == 0) continue;
            CHECK(strstr(out, word), "%s: --%s is missing", PRINTS[i], word);
            found++;
        }
        CHECK(found > 20, "tune --help shows %zu options", found);
    }
    static const struct {
        const char *line, *last, *completes;
    } CASES[] = {{"tune --embedding-b", "2", "--embedding-bits\n"},
                 {"verif", "1", "verify\n"},
                 {"help ins", "2", "inspect\n"},
                 {"eval mod", "2", "\n"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        snprintf(command, sizeof command,
                 "bash -c 'source <(\"$0\" completions bash); COMP_WORDS=(bitpair %s) COMP_CWORD=%s; _bitpair; "
                 "echo \"${COMPREPLY[@]}\"'",
                 CASES[i].line, CASES[i].last);
        CHECK(run_after(command, "") == 0 && strcmp(out, CASES[i].completes) == 0, "'%s' is completed to '%s' %s",
              CASES[i].line, out, err);
    }
    CHECK(run("help completions") == 0 && strstr(out, "bash | zsh | fish"), "%s%s", out, err);
    expect_failure("completion bash", 2, "did you mean 'completions'?");
    expect_failure("completions", 2, "too few words");
    expect_failure("completions tcsh", 2, "bash, zsh or fish");
}

static void check_usage(void) {
    expect_failure("", 2, "Usage");
    expect_failure("inspekt x", 2, "did you mean 'inspect'?");
    expect_failure("frobnicate", 2, "unknown command 'frobnicate'");
    expect_failure("inspect", 2, "Usage: bitpair inspect MODEL");
    expect_failure("inspect a b", 2, "unexpected word 'b'");
    expect_failure("inspect a --jsn", 2, "did you mean '--json'?");
    expect_failure("inspect a --json=1", 2, "--json=1");
    expect_failure("inspect a -z", 2, "-z");
    expect_failure("eval a", 2, "--text");
    expect_failure("compress a -o b --method rtn --bits 2.5", 2, "2, 3 or 4");
    expect_failure("compress a -o b --method rtn --bits 3 --dry-run", 2, "--dry-run");
    expect_failure("compress a -o b --method q8_0 --stages 1,1", 2, "--stages");
    expect_failure("compress a -o b --calib c --gradients none --block-steps 5", 2, "--block-steps goes with");
    expect_failure("compress a -o b --calib c --allocation d", 2, "--allocation goes with");
    expect_failure("compress a -o b --calib c --extend d --separate", 2, "--separate goes without");
    expect_failure("compress a -o b --calib c --method diagonal --lambda 1", 2, "--lambda goes with --method full");
    expect_failure("compress a -o b --calib c --method diagonal --gradients full", 2, "go with --method full");
    expect_failure("compress a -o b --calib c --gradient-tokens 64", 2, "goes with --gradients diagonal");
    expect_failure("compress a -o b --calib c --block-rate 0.1", 2, "--block-rate goes with");
    expect_failure("compress a -o b --calib c --extend d --embedding-bits 5", 2, "goes without --extend");
    expect_failure("tune a b -o c --calib d --steps 1 --fix-shared --embedding-rate 0.1", 2, "--embedding-rate trains");
    expect_failure("tune a b -o c --calib d --steps 1 --scales-only --sign-noise 3", 2, "go without --scales-only");
    expect_failure("eval a --tasks b --teacher c", 2, "go with --text");
    expect_failure("eval a --text b --limit 3", 2, "goes with --tasks");
    expect_failure("eval a --text", 2, "value is missing");
    expect_failure("eval a --text b --ctx 1", 2, "from 2 to");
    expect_failure("eval a --text b --ctx 5x", 2, "not '5x'");
    expect_failure("eval a --text b --tokens -5", 2, "whole number");
    expect_failure("bench a --threads 65", 2, "from 1 to 64");
    expect_failure("run a", 2, "--prompt");
    expect_failure("run a --prompt b --file c", 2, "either");
    expect_failure("run a -p b --temperature nan", 2, "not 'nan'");
    expect_failure("run a -p b --seed 18446744073709551616", 2, "whole number");
    expect_failure("compress a -o b --method q4_0 --bits 7 --embedding-bits 5", 2, "q4_0 takes no --bits");
    expect_failure("compress a -o b --method q8_0 --embedding-bits=5", 2, "q8_0 takes no --embedding-bits");
    expect_failure("compress a -o b --method rtn -b 3 --calib c", 2, "rtn takes no --calib");
    expect_failure("compress -o b a -t 1 -s 3 --method rtn", 2, "rtn takes no --seed");
    expect_failure("compress a -o b --calib c --stages 1,1 --bits 2", 2, "--bits goes without --stages");
    expect_failure("compress a -o b --method rtn --bits 4 --embedding-bits 3", 2, "4 to 8");
    expect_failure("compress /no/a -o b --method rtn -f -q -b4 --embedding-bits 0", 1, "/no/a");
    expect_failure("run a -p b --isa foo", 2, "not 'foo'");
    expect_failure("chat a --arith foo", 2, "lut8 or popcount");
    expect_failure("eval a --text b --kv 9", 2, "--kv is 8 or 16");
    expect_failure("chat a --logit-bias foo", 2, "--logit-bias");
    expect_failure("bench a -p foo", 2, "--prompt-tokens");
    expect_failure("bench a -p 8,", 2, "--prompt-tokens");
    expect_failure("bench a -d 0", 2, "--depth");
    expect_failure("tune a b -o c --calib d --steps 1 --tiers foo", 2, "--tiers");
    expect_failure("tune a b -o c --calib d --steps 1 --tiers 0,0", 2, "nothing to train");
    expect_failure("help frobnicate", 2, "unknown command 'frobnicate'");
}

static void write_text(const char *name, const char *bytes, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f) return;
    fwrite(bytes, 1, n, f);
    fclose(f);
}

static void check_bad_input(const char *model) {
    char arguments[2048];
    expect_failure("inspect /no/such/file", 1, "No such file");
    snprintf(arguments, sizeof arguments, "inspect %s", folder);
    expect_failure(arguments, 1, "config.json");
    write_text("text.gguf", "this is no model, but it is longer than a header", 48);
    snprintf(arguments, sizeof arguments, "tokenize %s/text.gguf", folder);
    expect_failure(arguments, 1, "text.gguf: ");
    snprintf(arguments, sizeof arguments, "run %s/text.gguf --prompt x", folder);
    expect_failure(arguments, 1, "text.gguf");
    write_text("empty.gguf", "", 0);
    snprintf(arguments, sizeof arguments, "verify %s/empty.gguf", folder);
    expect_failure(arguments, 1, "empty.gguf");
    snprintf(arguments, sizeof arguments, "verify %s", model);
    expect_failure(arguments, 1, "no checksums");
    write_text("latin.txt", "caf\xE9 au lait", 12);
    snprintf(arguments, sizeof arguments, "eval %s --quiet --text %s/latin.txt", model, folder);
    expect_failure(arguments, 1, "latin.txt");
    write_text("short.txt", "", 0);
    snprintf(arguments, sizeof arguments, "eval %s --quiet --text %s/short.txt", model, folder);
    expect_failure(arguments, 1, "at least 2");
    snprintf(arguments, sizeof arguments, "eval %s --quiet --text %s/none.txt", model, folder);
    expect_failure(arguments, 1, "none.txt");
    snprintf(arguments, sizeof arguments, "run %s --prompt x --isa abacus", model);
    expect_failure(arguments, 2, "abacus");
    write_text("wrong.gbnf", "root ::= \"a\nb", 13);
    snprintf(arguments, sizeof arguments, "run %s --prompt x --grammar %s/wrong.gbnf", model, folder);
    expect_failure(arguments, 1, "wrong.gbnf: grammar, line 1, column 10");
    snprintf(arguments, sizeof arguments, "chat %s --prompt x", model);
    expect_failure(arguments, 1, "bitpair run");
    snprintf(arguments, sizeof arguments, "run %s --prompt x --ctx 1000000", model);
    expect_failure(arguments, 1, "context");
}

/* The real output of each subcommand, on a small model. */
static double number_of(const char *name) {
    bp_err e = {0};
    cJSON *root = json_parse(out, strlen(out), "stdout", 0, &e);
    double x = root ? cJSON_GetNumberValue(cJSON_GetObjectItem(root, name)) : -1;
    CHECK(root, "%s: %s", e.text, out);
    cJSON_Delete(root);
    return x;
}

static double field(const cJSON *of, const char *name) { return cJSON_GetNumberValue(cJSON_GetObjectItem(of, name)); }

/* Two models, two texts and a set of questions: a line of JSON for each model, and tables. */
static void check_side_by_side(const char *model, const char *text) {
    static const char FIXTURE[] = BITPAIR_ROOT "/models/tinystories-656k.gguf";
    static const char SET[] = "{\"query\": \"Once upon a\", \"choices\": [\"time\", \"xylophone\"], \"gold\": 0}\n"
                              "{\"query\": \"Once upon a\", \"choices\": [\"time\", \"xylophone\"], \"gold\": 1}\n";
    char arguments[3000];
    write_text("set.jsonl", SET, sizeof SET - 1);
    snprintf(arguments, sizeof arguments,
             "eval %s '%s' --text %s,%s --tasks %s/set.jsonl --tokens 300 --ctx 100 --quiet --teacher %s", model,
             FIXTURE, text, text, folder, model);
    CHECK(run(arguments) == 0 && strstr(out, "zero-shot") && strstr(out, "tinystories-656k.gguf"), "%s%s", out, err);
    strcat(arguments, " --json");
    CHECK(run(arguments) == 0, "%s", err);
    char *second = strchr(out, '\n');
    CHECK(second && strchr(second + 1, '\n') == out + strlen(out) - 1, "not two lines: %s", out);
    if (!second) return;
    *second = 0;
    cJSON *first = json_parse(out, strlen(out), "stdout", 0, NULL);
    const cJSON *item = cJSON_GetArrayItem(cJSON_GetObjectItem(first, "texts"), 1);
    CHECK(field(item, "top1") == 1 && field(item, "ppl") == field(item, "teacher_ppl"), "%s", out);
    CHECK(cJSON_GetObjectItem(first, "mean") && !cJSON_GetObjectItem(first, "ppl") &&
              !cJSON_GetObjectItem(first, "tokens"),
          "figures of one text as those of the model: %s", out);
    cJSON_Delete(first);
    memmove(out, second + 1, strlen(second + 1) + 1);
    cJSON *root = json_parse(out, strlen(out), "stdout", 0, NULL);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(root, "texts")) == 2, "%s", out);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItem(root, "tasks")) == 1, "%s", out);
    CHECK(field(cJSON_GetArrayItem(cJSON_GetObjectItem(root, "texts"), 0), "kl") > 0.001, "%s", out);
    cJSON_Delete(root);
    CHECK(number_of("mean") == 0.5 && number_of("bytes") > 100000, "%s", out);
    snprintf(arguments, sizeof arguments, "eval %s --quiet --tasks %s/latin.txt", model, folder);
    expect_failure(arguments, 1, "broken JSON");
}

/* A chat: control tokens are tokens, as they are where the model was calibrated and where it answers. */
static void check_chat_text(void) {
    static const char CHAT[] = "<|im_start|>user\nHi<|im_end|>\n"; /* <|im_start|> user \n Hi <|im_end|> \n */
    write_text("chat.txt", CHAT, sizeof CHAT - 1);
    char arguments[2048];
    snprintf(arguments, sizeof arguments,
             "eval '" BITPAIR_ROOT "/models/smollm2-135m-instruct.gguf' --tier 1 --text %s/chat.txt --json -q", folder);
    CHECK(run(arguments) == 0 && number_of("tokens") == 6 && number_of("scored") == 5, "%s%s", out, err);
    const double bytes = number_of("nll") * 5 / 0.6931471805599453 / number_of("bits_per_byte");
    CHECK(fabs(bytes - (double)(sizeof CHAT - 1 - strlen("<|im_start|>"))) < 1e-3, "%g bytes scored", bytes);
}

static void check_figures(const char *model, const char *text) {
    char arguments[2048];
    snprintf(arguments, sizeof arguments, "inspect %s --json", model);
    CHECK(run(arguments) == 0 && number_of("bytes") > 2600000 && number_of("bits_per_weight") == 32, "%s", err);
    snprintf(arguments, sizeof arguments, "inspect %s --tensors", model);
    CHECK(run(arguments) == 0 && strstr(out, "blk.1.ffn_down.weight") && strstr(out, "128 x 384"), "%s", out);
    snprintf(arguments, sizeof arguments, "eval %s --text %s --tokens 1000 --ctx 256 --json --quiet", model, text);
    CHECK(run(arguments) == 0 && !err[0], "%s", err);
    CHECK(number_of("tokens") == 768 && number_of("scored") == 765, "%s", out);
    double nll = number_of("nll");
    CHECK(nll > 0.5 && nll < 5 && number_of("ppl") > 1 && number_of("bits_per_byte") > 0.3, "%s", out);
    snprintf(arguments, sizeof arguments,
             "eval %s --text %s --tokens 1000 --ctx 256 --json --quiet --teacher %s --threads 1", model, text, model);
    CHECK(run(arguments) == 0 && number_of("kl") == 0 && number_of("top1") == 1, "%s%s", out, err);
    CHECK(number_of("nll") == nll, "threads change the result");
    snprintf(arguments, sizeof arguments, "eval %s --text %s -n 512 -c 256 --json -q --teacher %s --kv 8", model, text,
             model);
    CHECK(run(arguments) == 0 && number_of("kl") > 0 && number_of("kl") < 1e-2, "what 8 bits cost: %s%s", out, err);
    check_side_by_side(model, text);
    check_chat_text();
    snprintf(arguments, sizeof arguments, "bench %s --threads 2 --json --repetitions 1 --quiet", model);
    CHECK(run(arguments) == 0 && number_of("prefill_tps") > 0 && number_of("decode_tps") > 0 &&
              number_of("threads") == 2,
          "%s%s", out, err);
}

/* Every case with its speed; the parts of the first thread are nearly all of the token, and never more. */
static void check_bench(const char *model) {
    char arguments[2048];
    bp_err e = {0};
    snprintf(arguments, sizeof arguments, "bench %s -t 2 -p 5,40 -d 9,150 -n 6 -r 2 --kv 16 --profile --json -q",
             model);
    CHECK(run(arguments) == 0 && number_of("kv_bits") == 16, "%s", err);
    cJSON *root = json_parse(out, strlen(out), "stdout", 0, &e);
    static const char *const KINDS[] = {"prefill", "decode"};
    for (size_t k = 0; root && k < 2; k++) {
        const cJSON *cases = cJSON_GetObjectItem(root, KINDS[k]), *item;
        CHECK(cJSON_GetArraySize(cases) == 2, "%s: %s", KINDS[k], out);
        cJSON_ArrayForEach(item, cases) {
            const cJSON *threads = cJSON_GetObjectItem(item, "profile_ms"), *part;
            const cJSON *first = threads ? threads->child : NULL;
            double sum = 0, token = field(item, "token_ms");
            CHECK(field(item, "tps") > 0 && cJSON_GetArraySize(threads) == 2, "%s", out);
            cJSON_ArrayForEach(part, first) sum += part->valuedouble;
            sum -= field(first, "outside");
            CHECK(token > 0 && sum > 0.5 * token && sum < token + 2e-3, "%g of %g ms", sum, token);
            CHECK(field(first, "attention") > 0, "attention takes time: %s", out);
        }
    }
    cJSON_Delete(root);
    snprintf(arguments, sizeof arguments, "bench %s -p 8 -n 2 -r 1 --profile -q", model);
    CHECK(run(arguments) == 0 && strstr(out, "attention") && strstr(out, "kv8"), "%s%s", out, err);
    snprintf(arguments, sizeof arguments, "bench %s --depth 8,x", model);
    CHECK(run(arguments) == 2 && strstr(err, "--depth"), "%s", err);
    snprintf(arguments, sizeof arguments, "bench %s --depth 99999999999999999999", model);
    CHECK(run(arguments) == 1 && strstr(err, "--depth"), "%s", err);
    snprintf(arguments, sizeof arguments, "bench %s -p 16,32 --depth '' --json", model);
    CHECK(run(arguments) == 2 && strstr(err, "--depth"), "%s", err);
    snprintf(arguments, sizeof arguments, "bench %s --kv 12", model);
    CHECK(run(arguments) == 2 && strstr(err, "8 or 16 bits"), "%s", err);
}

static void check_generation(const char *model) {
    char arguments[2048], first[4096];
    snprintf(arguments, sizeof arguments, "run %s --prompt 'Once upon a time' --greedy --max-tokens 20", model);
    CHECK(run(arguments) == 0 && out[0] && strstr(err, "answer 20 tokens"), "%s%s", out, err);
    snprintf(first, sizeof first, "%.4000s", out);
    snprintf(arguments, sizeof arguments, "run %s --file - --temperature 0 --max-tokens 20 --quiet --threads 1", model);
    CHECK(run_after("printf 'Once upon a time' |", arguments) == 0 && strcmp(out, first) == 0 && !err[0], "%s%s", out,
          err);
    write_text("yes.gbnf", "root ::= \" \"? \"yes\"", 19);
    snprintf(arguments, sizeof arguments, "run %s -p 'Is it true?' --grammar %s/yes.gbnf --quiet", model, folder);
    CHECK(run(arguments) == 0 && (strcmp(out, "yes\n") == 0 || strcmp(out, " yes\n") == 0), "%s%s", out, err);
    snprintf(arguments, sizeof arguments, "run %s -p 'Once upon a time' -n 20 -q --temperature 1 --seed 5", model);
    CHECK(run(arguments) == 0, "%s", err);
    snprintf(first, sizeof first, "%.4000s", out);
    CHECK(run(arguments) == 0 && strcmp(out, first) == 0, "the same seed gives another text");
    static const char *const OPTIONS[] = {"--typical-p 0.2", "--frequency-penalty 3", "--presence-penalty=3",
                                          "--logit-bias 300=100"};
    for (size_t i = 0; i < sizeof OPTIONS / sizeof OPTIONS[0]; i++) {
        snprintf(arguments, sizeof arguments, "run %s -p 'Once upon a time' -n 20 -q --temperature 1 --seed 5 %s",
                 model, OPTIONS[i]);
        CHECK(run(arguments) == 0 && strcmp(out, first) != 0, "%s changes nothing: %s", OPTIONS[i], err);
    }
    static const char *const BAD[] = {"x=1", "5", "5=", "5=1:6=2", "-5=1", "99999999999=1", "5=inf", "1000000=1"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        snprintf(arguments, sizeof arguments, "run %s -p x -n 1 --logit-bias %s", model, BAD[i]);
        CHECK(run(arguments) == (i < 6 ? 2 : 1) && strstr(err, "bias") && !out[0], "--logit-bias %s: %s", BAD[i], err);
    }
    snprintf(arguments, sizeof arguments, "run -q -n 5 -- %s --prompt", model);
    CHECK(run(arguments) == 2 && strstr(err, "unexpected word '--prompt'"), "%s", err);
}

/* The fixture: whole, cut at a tier, cut anywhere, damaged. */
static void check_verify(void) {
    static const char FIXTURE[] = BITPAIR_ROOT "/models/tinystories-656k.gguf";
    char arguments[2048], unchecked[80];
    static char bytes[1 << 20];
    FILE *f = fopen(FIXTURE, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    CHECK(f && n > 1000, "no %s", FIXTURE);
    if (f) fclose(f);
    snprintf(arguments, sizeof arguments, "verify '%s'", FIXTURE);
    CHECK(run(arguments) == 0 && strstr(out, "good:"), "%s%s", out, err);
    strcat(arguments, " --json");
    CHECK(run(arguments) == 0 && number_of("unchecked_bytes") == 0, "%s%s", out, err);
    snprintf(arguments, sizeof arguments, "inspect '%s' --json", FIXTURE);
    CHECK(run(arguments) == 0 && number_of("tiers_at_hand") >= 1, "%s%s", out, err);
    cJSON *root = json_parse(out, strlen(out), "stdout", 0, NULL);
    const cJSON *tier = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "tiers"), 0);
    size_t end = tier ? (size_t)cJSON_GetNumberValue(cJSON_GetObjectItem(tier, "end")) : 0;
    const cJSON *tensor = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "tensors"), 0);
    size_t rest = end - (size_t)cJSON_GetNumberValue(cJSON_GetObjectItem(tensor, "offset"));
    cJSON_Delete(root);
    CHECK(end > 0 && end <= n, "tier 0 ends at %zu", end);
    snprintf(unchecked, sizeof unchecked, "the last %zu bytes are of a piece that was cut", rest);
    snprintf(arguments, sizeof arguments, "verify %s/file.gguf", folder);
    write_text("file.gguf", bytes, end);
    CHECK(run(arguments) == 0 && strstr(out, "good as far as it can be checked: ") && strstr(out, unchecked), "%s%s",
          out, err);
    strcat(arguments, " --json");
    CHECK(run(arguments) == 0 && number_of("unchecked_bytes") == (double)rest, "%s%s", out, err);
    *strstr(arguments, " --json") = 0;
    write_text("file.gguf", bytes, end - 1);
    expect_failure(arguments, 1, "truncated");
    bytes[n - 5] ^= 1;
    write_text("file.gguf", bytes, n);
    expect_failure(arguments, 1, "does not match its checksum");
    bytes[n - 5] ^= 1;
    write_text("file.gguf", bytes, n + 1);
    expect_failure(arguments, 1, "1 bytes too many");
}

/* The first tiers of a file: as the file that ends there; files that have no such tier. */
static void check_tier(const char *dense, const char *text) {
    static const char FIXTURE[] = BITPAIR_ROOT "/models/tinystories-656k.gguf";
    char arguments[3000], options[1200];
    static char bytes[1 << 20], cut[sizeof out];
    snprintf(arguments, sizeof arguments, "inspect '%s' --json", FIXTURE);
    CHECK(run(arguments) == 0, "%s", err);
    cJSON *root = json_parse(out, strlen(out), "stdout", 0, NULL);
    const cJSON *tier = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "tiers"), 1);
    size_t end = tier ? (size_t)cJSON_GetNumberValue(cJSON_GetObjectItem(tier, "end")) : 0;
    cJSON_Delete(root);
    FILE *f = fopen(FIXTURE, "rb");
    CHECK(f && end > 0 && end < sizeof bytes && fread(bytes, 1, end, f) == end, "no second tier");
    if (f) fclose(f);
    write_text("cut.gguf", bytes, end);
    snprintf(options, sizeof options, "--text %s --tokens 300 --ctx 100 --quiet --json --teacher '%s'", text, FIXTURE);
    snprintf(arguments, sizeof arguments, "eval %s/cut.gguf %s", folder, options);
    CHECK(run(arguments) == 0 && number_of("bytes") == (double)end, "%s%s", out, err);
    const double kl = number_of("kl"), bits = number_of("bits_per_weight");
    snprintf(arguments, sizeof arguments, "eval '%s' --tier 2 %s", FIXTURE, options);
    CHECK(run(arguments) == 0 && number_of("bytes") == (double)end && kl > 0.01 && number_of("kl") == kl &&
              number_of("bits_per_weight") == bits,
          "%s%s", out, err);
    snprintf(arguments, sizeof arguments, "run %s/cut.gguf -p 'Once upon' -g -n 20 -q", folder);
    CHECK(run(arguments) == 0 && out[0], "%s", err);
    memcpy(cut, out, sizeof cut);
    snprintf(arguments, sizeof arguments, "run '%s' --tier 2 -p 'Once upon' -g -n 20 -q", FIXTURE);
    CHECK(run(arguments) == 0 && strcmp(out, cut) == 0, "%s, not %s", out, cut);
    snprintf(arguments, sizeof arguments, "run %s/cut.gguf --tier 3 -p a", folder);
    expect_failure(arguments, 1, "cut.gguf: tier 3 is not in the file");
    snprintf(arguments, sizeof arguments, "bench '%s' --tier 4", FIXTURE);
    expect_failure(arguments, 1, "the file has 3 tiers, not 4");
    snprintf(arguments, sizeof arguments, "chat %s --tier 1 </dev/null", dense);
    expect_failure(arguments, 1, "is dense and has no tiers");
}

/* SIGINT: what was there is printed, and the exit code tells. */
static void check_interrupt(const char *large, const char *small, const char *text) {
    char arguments[2048];
    snprintf(
        arguments, sizeof arguments,
        "run %s --prompt 'Once upon a time' --repeat-penalty 1.3 --logit-bias 0=-99,2=-99 --ctx 8192 --max-tokens 8000",
        large);
    int code = -1; /* a busy machine may need longer to the first word; 0 and 2 would end the text */
    for (int seconds = 3; seconds < 50 && (code == -1 || (code == 130 && !out[0])); seconds *= 2) {
        char before[80];
        snprintf(before, sizeof before, "timeout --foreground --preserve-status -s INT %d", seconds);
        code = run_after(before, arguments);
    }
    CHECK(code == 130 && out[0] && out[strlen(out) - 1] == '\n', "%s%s", out, err);
    snprintf(arguments, sizeof arguments, "eval %s --quiet --text %s", small, text);
    CHECK(run_after("timeout --foreground --preserve-status -s INT 1", arguments) == 130 && !out[0], "%s%s", out, err);
}

static void check_full_output(const char *model) {
    char command[2048];
    snprintf(command, sizeof command, "'%s' inspect %s >/dev/full 2>%s/err", tool, model, folder);
    int status = system(command);
    read_back("err", err, sizeof err);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1 && strstr(err, "standard output"), "%s", err);
}

int main(void) {
    char model[600], text[600];
    ssize_t n = readlink("/proc/self/exe", tool, sizeof tool - 16);
    while (n > 0 && tool[n - 1] != '/') n--;
    snprintf(tool + n, sizeof tool - (size_t)n, "bitpair");
    CHECK(access(tool, X_OK) == 0 && mkdtemp(folder), "no %s", tool);
    setenv("NO_COLOR", "1", 1);
    snprintf(model, sizeof model, "%s", check_data("models/tinystories-656k"));
    snprintf(text, sizeof text, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    check_help();
    check_manual();
    check_usage();
    check_bad_input(model);
    check_figures(model, text);
    check_bench(model);
    check_generation(model);
    check_verify();
    check_tier(model, text);
    check_interrupt(check_data("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"), model, text);
    check_full_output(model);
    char command[256];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "cannot remove %s", folder);
    return check_end();
}
