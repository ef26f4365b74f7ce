#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizers of this directory that are not byte-level BPE, and what other software does with texts.json.

Needs the PyPI packages tokenizers (made with 0.23.3), sentencepiece (0.2.3), gguf and llama-cpp-python (0.3.36, llama.cpp
as it vendors it). Run in this directory after make.py: make_pieces.py. Writes NAME/tokenizer.json, hf-pieces.json (as
hf.json) and spm.json (vocabularies of the type "llama": metadata, and ids by llama.cpp; also with --special), gguf-hash.json.
The trainers of tokenizers break ties by chance, so that everything of theirs changes together from run to run.
"""
import base64, io, json, os, tempfile
import sentencepiece as spm
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)
from make import CORPUS, split

LINES = [line for line in CORPUS.split("\n") if line][:20]
RULES = [("ﬁ", "fi"), ("①", "1"), ("e\u0301", "é"), ("\u212b", "\u00c5"), ("\u200d", ""), ("\t", " "), ("\n", " "), ("\r", " "), ("Z", "z"),
         ("\u0660", "0"), ("界", "世界"), ("\u00a0", " "), ("\u3000", " "), ("\u00e9\u0301", "\u00e9")]
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = ["<0x%02X>" % i for i in range(256)]


def fields(data):
    """(number, value) of a protobuf message."""
    f = io.BytesIO(data)

    def varint():
        v = shift = 0
        while True:
            b = f.read(1)
            if not b:
                return None
            v |= (b[0] & 127) << shift
            shift += 7
            if b[0] < 128:
                return v
    while (key := varint()) is not None:
        yield key >> 3, varint() if key & 7 == 0 else f.read({2: None, 5: 4, 1: 8}[key & 7] or varint())


def train_spm(**kw):
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=out, minloglevel=2, num_threads=1,
                                   hard_vocab_limit=False, **kw)
    return out.getvalue()


def charsmap():
    with tempfile.TemporaryDirectory() as d:
        with open(d + "/rules.tsv", "w") as f:
            for a, b in RULES:
                f.write(" ".join("%X" % ord(c) for c in a) + "\t" + " ".join("%X" % ord(c) for c in b) + "\n")
        proto = train_spm(model_type="unigram", vocab_size=240, normalization_rule_tsv=d + "/rules.tsv")
    spec = dict(fields(proto))[3]
    return dict(fields(spec))[2]


def finish(name, t, added=(), post=None):
    if added:
        t.add_tokens(list(added))
    if post:
        t.post_processor = post
    os.makedirs(name, exist_ok=True)
    t.save(name + "/tokenizer.json", pretty=False)
    return t, name


def unigram():
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.decoder = decoders.Metaspace(prepend_scheme="always")
    t.train_from_iterator(LINES, trainers.UnigramTrainer(vocab_size=330, unk_token="<unk>", special_tokens=SPECIAL,
                                                         show_progress=False))
    return finish("unigram", t, [AddedToken("<extra>", lstrip=True, rstrip=True, normalized=False), AddedToken("mill", single_word=True)],
                  processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)]))


def unigram_bytes():
    t = Tokenizer(models.Unigram())
    t.train_from_iterator([" ".join(LINES[:9])], trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=SPECIAL,
                                                                        show_progress=False))
    vocab = [tuple(p) for p in json.loads(t.to_str())["model"]["vocab"]]
    t = Tokenizer(models.Unigram(vocab + [(b, -20.0 - i / 7) for i, b in enumerate(BYTES)] + [("▁", -4.5), ("▁▁", -6.25)], 0, True))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return finish("unigram-bytes", t, [AddedToken("<s>", special=True, normalized=False)])


def wordpiece():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=60))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False))
    return finish("wordpiece", t, post=processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)))


def word_end():
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False, strip_accents=False)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.BPEDecoder()
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=480, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False))
    return finish("word-end", t)


def word_prefix():
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, continuing_subword_prefix="##"))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    t.decoder = decoders.WordPiece(cleanup=False)
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=480, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False))
    return finish("word-prefix", t)


def bytes_word_end():  # as CLIP has it
    t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([split(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", "removed", invert=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=620, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return finish("bytes-word-end", t)


def fallback(name, normalizer, pre, decoder, added=(), **model):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, **model))
    if normalizer:
        t.normalizer = normalizer
    if pre:
        t.pre_tokenizer = pre
    t.decoder = decoder
    t.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=560, special_tokens=SPECIAL + BYTES, show_progress=False))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(j))
    return finish(name, t, added, processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]))


def word_level():
    t = Tokenizer(models.WordLevel(unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKD(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit("-"), split(r"[\w,]+|\W"), pre_tokenizers.WhitespaceSplit(),
                                               pre_tokenizers.FixedLength(3)])
    t.train_from_iterator(LINES, trainers.WordLevelTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False))
    return finish("word-level", t)


def tokenizers():
    space = [AddedToken(s, normalized=False) for s in ("\n", "\n\n", "\n\n\n", "▁▁", "<0", "<unused0>", "<unused01>")]
    yield unigram()
    yield unigram_bytes()
    yield wordpiece()
    yield word_end()
    yield word_prefix()
    yield bytes_word_end()
    yield word_level()
    yield fallback("meta-first", None, pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"),
                   [AddedToken("ab", normalized=False), AddedToken("river", rstrip=True)])
    yield fallback("meta-never", None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False), decoders.Metaspace(prepend_scheme="never"))
    yield fallback("gemma", normalizers.Replace(" ", "▁"), split(" ", "merged_with_previous"), decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]), space, fuse_unk=True)


def expected(t, texts):
    enc = lambda s, sp: t.encode(s, add_special_tokens=sp).ids
    return {"ids": [enc(s, False) for s in texts], "special": enc("a b", True),
            "decoded": [t.decode(enc(s, False), skip_special_tokens=False) for s in texts],
            "pieces": t.decode([i for i in range(3, 300, 7)], skip_special_tokens=False)}


def gguf_spm(texts):
    """Two vocabularies: Llama 2's rules, and Gemma's (no space in front, user-defined tokens)."""
    import gguf, llama_cpp
    out = {}
    for name, user, prefix in (("spm", ["<sep>", "\n\n", "ab", "bcd"], True), ("spm-plain", ["▁▁", "▁▁▁▁", "<sep>", "\n\n"], False)):
        proto = train_spm(model_type="bpe", vocab_size=620, byte_fallback=True, normalization_rule_name="identity",
                          remove_extra_whitespaces=False, add_dummy_prefix=prefix, user_defined_symbols=user)
        sp = spm.SentencePieceProcessor(model_proto=proto)
        n = sp.get_piece_size()
        tokens = [sp.id_to_piece(i) for i in range(n)]
        kinds = {dict(fields(p))[1].decode(): dict(fields(p)).get(3, 1) for k, p in fields(proto) if k == 1}
        meta = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": [sp.get_score(i) for i in range(n)],
                "tokenizer.ggml.token_type": [kinds[s] for s in tokens], "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
                "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_space_prefix": prefix}
        with tempfile.TemporaryDirectory() as d:
            w = gguf.GGUFWriter(d + "/x.gguf", "llama")
            w.add_tokenizer_model("llama")
            w.add_token_list(tokens)
            w.add_token_scores(meta["tokenizer.ggml.scores"])
            w.add_token_types(meta["tokenizer.ggml.token_type"])
            w.add_bos_token_id(1)
            w.add_eos_token_id(2)
            w.add_unk_token_id(0)
            w.add_add_bos_token(True)
            w.add_add_space_prefix(prefix)
            w.write_header_to_file()
            w.write_kv_data_to_file()
            w.close()
            m = llama_cpp.Llama(d + "/x.gguf", vocab_only=True, verbose=False)
            out[name] = {"meta": meta, "ids": [m.tokenize(s.encode(), add_bos=False, special=True) for s in texts],
                         "special": m.tokenize(b"a b", add_bos=True, special=True)}
        same = sum(sp.encode(s) == i for s, i in zip(texts, out[name]["ids"]))
        print(name, n, "tokens;", same, "of", len(texts), "texts have SentencePiece's own ids")
    return out


def ids_hash(ids):
    """Of the int32 of a list: what text_hash in C gives, its lower 31 bits."""
    data = b"".join(i.to_bytes(4, "little") for i in ids)
    h = 0xcbf29ce484222325 ^ len(data)
    for b in data:
        h = (h ^ b) * 0x100000001b3 & (1 << 64) - 1
    return (h ^ h >> 29) & 0x7fffffff


def more_pres(texts):
    """Names of pre-tokenizers beyond those of gguf.json: only hashes of the ids."""
    from make import llama_ids, write_gguf
    meta = json.load(open("gguf-meta.json"))
    out = {}
    with tempfile.TemporaryDirectory() as d:
        for pre in ("deepseek-llm", "jais-2", "exaone-moe", "laguna", "ufakzeka", "chameleon", "bloom"):
            write_gguf(d + "/x.gguf", meta, pre)
            out[pre] = [ids_hash(i) for i in llama_ids(d + "/x.gguf", texts)[0]]
    return out


def main():
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    t = json.load(open("texts.json"))
    texts = t["text"] + [bytes.fromhex(h).decode(errors="replace") for h in t["hex"]]
    dump = lambda name, v: open(name, "w").write(json.dumps(v, separators=(",", ":")) + "\n")
    dump("hf-pieces.json", {name: expected(tok, texts) for tok, name in tokenizers()})
    dump("gguf-hash.json", more_pres([s for s in texts if "\x00" not in s]))
    dump("spm.json", gguf_spm([s for s in texts if "\x00" not in s] + ["abcd <sep>x  y</s>"]))


if __name__ == "__main__":
    main()
