/* SPDX-License-Identifier: Apache-2.0
 * Text to ids and back: byte-level BPE from tokenizer.json or from the metadata of a GGUF file. Equal to
 * Hugging Face tokenizers (tokenizer.json) and llama.cpp (GGUF vocabularies); anything that cannot be
 * honoured is refused by name. */
#ifndef NT_TOKENIZER_H
#define NT_TOKENIZER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "common/err.h"

struct tokenizer;

/* MODEL as for checkpoint_open, or a directory that holds only tokenizer.json. NULL and one sentence on
 * failure. */
struct tokenizer *tokenizer_open(const char *model_path, struct err *e) NT_MUST_CHECK;
void tokenizer_free(struct tokenizer *t);
/* No BOS/EOS unless special; special tokens spelled in the text become their ids in both cases. Bad UTF-8
 * becomes U+FFFD. *ids is allocated (mem_array). */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool special, int32_t **ids,
                     size_t *n, struct err *e) NT_MUST_CHECK;
/* Bytes of ids; special tokens kept; bad UTF-8 becomes U+FFFD. NUL-terminated, allocated. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *len,
                     struct err *e) NT_MUST_CHECK;
/* tokenizer.json and tokenizer_config.json of what a GGUF file's metadata describes; new references. NULL:
 * cannot be honoured, or has no such form. */
json_t *tokenizer_json_from_gguf(const json_t *meta, const char *name, struct err *e) NT_MUST_CHECK;
json_t *tokenizer_config_from_gguf(const json_t *meta);
/* The other way round: keys tokenizer.ggml.* for a model of `vocab` tokens, of t and the tokenizer.json that it was
 * read from; bos, eos: -1 = none. New reference. NULL: its ids would be others. */
json_t *tokenizer_to_gguf(const struct tokenizer *t, const json_t *tokenizer_json, int vocab, int bos, int eos,
                          struct err *e) NT_MUST_CHECK;
int tokenizer_size(const struct tokenizer *t);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id); /* control/added special token */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id); /* ends a generation: EOS, end of turn ... */
int32_t tokenizer_bos(const struct tokenizer *t);             /* -1: none */
/* The vocabulary's rule: *bos = the BOS that encoding with special tokens puts in front, -1: it puts none. */
int tokenizer_first(const struct tokenizer *t, int32_t *bos, struct err *e) NT_MUST_CHECK;
int32_t tokenizer_eos(const struct tokenizer *t);
#endif
