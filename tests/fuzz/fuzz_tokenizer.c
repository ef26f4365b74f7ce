/* SPDX-License-Identifier: Apache-2.0
 * A tokenizer (tokenizer.json, or GGUF metadata as JSON) up to the first NUL, then a text: load, encode,
 * decode. */
#include "tests/fuzz/fuzz.h"
#include "common/mem.h"
#include "common/tokenizer_impl.h"

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\xC4\xA0\":3,\"<s>\":4,\"<0x41>\":6,\"\xE2\x96\x81\":7},"
#define CHARSMAP "DAAAAAAAAAABDQAAAAAAAGEA"
#define SEED(text)                                                                                           \
    {                                                                                                        \
        text, sizeof(text) - 1                                                                               \
    }
static const struct {
    const char *p;
    size_t n;
} seeds[] = {
    SEED("{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true,\"normalized\":false},{"
         "\"id\":9,\"content\":\"b a\","
         "\"lstrip\":true,\"rstrip\":true,\"single_word\":true}],\"normalizer\":{\"type\":"
         "\"Sequence\",\"normalizers\":[{\"type\":"
         "\"NFC\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"q+\"},\"content\":\"b\"},{"
         "\"type\":\"Strip\"}]},\"pre_tokenizer\":"
         "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?"
         "i:'s)|\\\\p{L}+|\\\\s*[\\\\r\\\\n]+"
         "|[^\\\\s]\"},\"behavior\":\"MergedWithNext\",\"invert\":false},{\"type\":\"ByteLevel\","
         "\"add_prefix_space\":true}]},"
         "\"decoder\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":\"TemplateProcessing\","
         "\"single\":[{\"SpecialToken\":"
         "{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[4]}"
         "}},\"model\":{\"type\":\"BPE\"," VOCAB
         "\"unk_token\":\"a\",\"fuse_unk\":true,\"ignore_merges\":true,\"merges\":[\"a b\"]}}\0ab "
         "<s> b a\xFFqq 's\nab"),
    SEED("{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},\"pre_tokenizer\":{"
         "\"type\":\"Metaspace\",\"replacement\""
         ":\"\xE2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":true},\"decoder\":{\"type\":"
         "\"Sequence\",\"decoders\":[{\"type\":"
         "\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},\"content\":\" "
         "\"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
         "{\"type\":\"Strip\",\"content\":\" "
         "\",\"start\":1,\"stop\":0}]},\"model\":{\"byte_fallback\":true," VOCAB
         "\"merges\":[[\"a\",\"b\"]]}}\0ab Aab\xC3 z"),
    SEED("{\"tokenizer.ggml.model\":\"gpt2\",\"tokenizer.ggml.pre\":\"llama-bpe\",\"tokenizer.ggml."
         "tokens\":[\"a\",\"b\",\"ab\",\"<s>\","
         "\"\xC4\xA0\"],\"tokenizer.ggml.token_type\":[1,1,1,3,4],\"tokenizer.ggml.merges\":[\"a "
         "b\",\"ab q\",\"\xC4\xA0 a\"],"
         "\"tokenizer.ggml.bos_token_id\":3}\0ab<s>abq ab\n"),
    SEED("{\"tokenizer.ggml.model\":\"llama\",\"tokenizer.ggml.tokens\":[\"<unk>\",\"<s>\",\"</s>\",\"a\","
         "\"b\",\"ab\",\"\xE2\x96\x81\",\"<0x41>\",\"\xE2\x96\x81 ab\"],\"tokenizer.ggml.scores\":[0,0,0,-1,"
         "-2,-3.5,-4,0,-5],\"tokenizer.ggml.token_type\":[2,3,3,1,1,1,1,6,4],"
         "\"tokenizer.ggml.add_space_prefix\":true}\0ab  Aab</s>\xC3 z ab"),
    SEED("{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\","
         "\"precompiled_charsmap\":\"" CHARSMAP "\"},{\"type\":\"Nmt\"}]},"
         "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"always\"},\"decoder\":{\"type\":"
         "\"Metaspace\"},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<"
         "unk>\","
         "0],[\"a\",-1],[\"b\",-2.5],[\"ab\",-2],[\"\xE2\x96\x81\",-3],[\"<0x41>\",-9]]}}\0ab aab\x01Aq "
         "qAe\xCC\x81"),
    SEED("{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":true},\"pre_tokenizer\":{\"type\":"
         "\"Sequence\",\"pretokenizers\":[{\"type\":\"BertPreTokenizer\"},{\"type\":\"Whitespace\"},"
         "{\"type\":\"FixedLength\",\"length\":3},{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"q\"}]},"
         "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},\"model\":{\"type\":"
         "\"WordPiece\","
         "\"unk_token\":\"[UNK]\",\"continuing_subword_prefix\":\"##\",\"max_input_chars_per_word\":9,"
         "\"vocab\":{\"[UNK]\":0,\"a\":1,\"##b\":2,\"##a\":3,\".\":4}}}\0abA.aba q\xE7\x95\x8C"
         "aaaaaaaaaa"),
    SEED(
        "{\"pre_tokenizer\":{\"type\":\"Whitespace\"},\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"</"
        "w>\"},"
        "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<u>\",\"end_of_word_suffix\":\"</w>\","
        "\"continuing_subword_prefix\":\"#\",\"vocab\":{\"<u>\":0,\"a\":1,\"#b\":2,\"#b</w>\":3,\"ab</w>\":4,"
        "\"a</w>\":5},\"merges\":[\"a #b</w>\"]}}\0ab a abb x")};

bool fuzz_seed(int i, uint8_t **data, size_t *size)
{
    if (i >= (int)(sizeof seeds / sizeof *seeds)) return false;
    *size = seeds[i].n;
    *data = malloc(*size);
    memcpy(*data, seeds[i].p, *size);
    return true;
}

static void use(const struct tokenizer *t, const char *text, size_t n)
{
    struct err e = {0};
    int32_t *ids;
    size_t count, len;
    char *back;
    if (tokenizer_encode(t, text, n, true, &ids, &count, &e)) return;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= tokenizer_size(t)) abort();
    if (!tokenizer_decode(t, ids, count, &back, &len, &e)) {
        if (!text_valid(back, len)) abort();
        mem_free(back);
    }
    mem_free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = memchr(data, 0, size);
    size_t n = nul ? (size_t)(nul - data) : size;
    struct err e = {0};
    struct tokenizer *t = NULL;
    json_t *j = json_loadb((const char *)data, n, JSON_ALLOW_NUL, NULL);
    bool gguf = json_object_get(j, "tokenizer.ggml.tokens");
    if (j && !(gguf ? tokenizer_from_gguf(j, "fuzz", &t, &e) : tokenizer_from_json(j, "fuzz", &t, &e))) {
        use(t, (const char *)data + n, size - n);
        tokenizer_free(t);
    } else if (j && !*e.text) {
        abort(); /* refused without a word */
    }
    json_decref(j);
    return 0;
}
