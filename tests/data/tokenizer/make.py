#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the tokenizers of this directory and what Hugging Face tokenizers and llama.cpp do with tricky text.

Needs the PyPI packages tokenizers (made with 0.23.3), gguf and llama-cpp-python (0.3.36, llama.cpp as it vendors it).
Run in this directory: make.py [SmolLM2.gguf]. Writes NAME/tokenizer.json, hf.json (per tokenizer: ids, ids with special,
decoded text), gguf-meta.json, gguf.json (per `pre`: ids), smollm2.json (ids by llama.cpp for the real vocabulary).
Bad UTF-8 is repaired by Python's decode(errors="replace") before the programs see it: one U+FFFD for each longest
beginning of a character; the test gives the C code the bad bytes ("hex").
"""
import json, os, random, sys, tempfile
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers)

rng = random.Random(20)
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"
             r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CORPUS = """The river runs past the old mill and the miller's children count the boats: 1, 2, 3, 42, 1999, 100000.
We've seen that they're late; I'll wait, you'd better go, it's 12:30 now and she didn't say "I'M HERE".
def main(argc, argv):\n    for i in range(10):\n        print(i, i*i)\n\n\n    return 0\r\n\t\tx = y + 3.14159;
Größe, Straße, façade, naïve, Ångström, São Paulo, niño, señor, œuvre, dž, Ωμέγα, Москва и Волга, שלום עולם.
مرحبا بالعالم، كيف حالك؟ العربية لغة جميلة. สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง. नमस्ते दुनिया, हिन्दी में लिखा है।
你好,世界。今天天气很好,我们去公园散步。こんにちは世界、カタカナとひらがな。안녕하세요 세계.
Emoji: \U0001F600 \U0001F468\u200d\U0001F469\u200d\U0001F467 \U0001F1E9\U0001F1EA \u2764\ufe0f and more words in the river of time.
""" * 4

SPECIAL = ["<|begin|>", "<|end|>", "<|end_of_turn|>"]


def bpe(name, normalizer, pre, post=None, vocab=700, added=(), **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer:
        t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if added:
        t.add_tokens(list(added))
    if post:
        t.post_processor = post(t)
    os.makedirs(name, exist_ok=True)
    t.save(name + "/tokenizer.json", pretty=False)
    return t


def byte_level(**kw):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, **kw)


def template(t):
    b = t.token_to_id("<|begin|>")
    return processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B", special_tokens=[("<|begin|>", b)])])


def split(p, behavior="isolated", **kw):
    return pre_tokenizers.Split(Regex(p), behavior=behavior, **kw)


ODD = [AddedToken("word", single_word=True, normalized=True), AddedToken("lefty", lstrip=True),
       AddedToken("righty", rstrip=True), AddedToken("  ", normalized=False), AddedToken("ab", normalized=False),
       AddedToken("abc", normalized=False), AddedToken("Straße", normalized=True), AddedToken("é\u0301", normalized=False)]


def families():
    seq = pre_tokenizers.Sequence
    yield bpe("gpt2", None, pre_tokenizers.ByteLevel(add_prefix_space=True)), "gpt2"
    yield bpe("llama3", None, seq([split(LLAMA3), byte_level(use_regex=False)]), template, ignore_merges=True), "llama3"
    yield bpe("qwen2", normalizers.NFC(), seq([split(QWEN2), byte_level(use_regex=False)])), "qwen2"
    yield bpe("smollm", None, seq([pre_tokenizers.Digits(individual_digits=True), byte_level()])), "smollm"
    # everything odd at once: normalizers, behaviors, added tokens with all flags
    yield bpe("odd", normalizers.Sequence([normalizers.NFKD(), normalizers.Replace("mill", "MILL"),
                                           normalizers.Replace(Regex(r"q+"), "Q"), normalizers.Lowercase()]),
              seq([split(r"[.,;:]", "merged_with_previous"), split(r"[\"'(]", "merged_with_next"), split(r"-", "removed"),
                   split(r"[a-z\s]+", "contiguous", invert=True), pre_tokenizers.Punctuation("contiguous"), byte_level()]),
              lambda t: processors.RobertaProcessing(("<|end|>", 1), ("<|begin|>", 0)), added=ODD), "odd"
    yield deepseek(), "deepseek3"
    yield metaspace(), "metaspace"


def deepseek():
    return bpe("deepseek3", None, pre_tokenizers.Sequence([split(r"\p{N}{1,3}"), split(r"[一-龥\u3040-ゟ゠-ヿ]+"),
                                                           split(DEEPSEEK3), byte_level(use_regex=False)]))


def metaspace():  # not byte-level: characters, bytes for what is unknown, as Llama 2 has it
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=620, special_tokens=special, show_progress=False)
    t.train_from_iterator([w for w in CORPUS.replace(" ", " ▁").split(" ")], trainer)
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(j))
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    os.makedirs("metaspace", exist_ok=True)
    t.save("metaspace/tokenizer.json", pretty=False)
    return t


def texts():
    long = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(5000))
    out = ["", " ", "  ", "      ", "\n", "\n\n\n", "\r\n\r\n", " \n \n  x", "a\tb\t\tc", "x  y   z    ", "\u00a0\u3000\u2028x",
           "Hello, world! It's we've I'LL you'D 'S 'ſ", "1234567890 12 3.1415926 ²③Ⅷ ٣٤٥ १२३", "x=1;y=22;z=333;w=4444",
           "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466 \U0001F600\U0001F1E9\U0001F1EA \u2764\ufe0f",
           "e\u0301 A\u030a \u1e9b\u0323 ﬁ Å \u0958 \uac01 \u1100\u1161\u11a8", "你好,世界。今天天气很好 こんにちは カタカナ 안녕",
           "مرحبا بالعالم، كيف حالك؟", "สวัสดีชาวโลก ภาษาไทย", "नमस्ते दुनिया", "\u180e\u200b\u0085\x1c\x1f",
           "<|begin|>hi<|end|> <|end_of_turn|><|end_of", "a<|begin|><|begin|> b\n<|end|>\n", "qqq mill Straße STRASSE-x.y,;:z \"(q\")",
           "word words sword word. a word", "  lefty  x righty   y", "abcd ab abc  é\u0301 x", "\x00a\x00", "\ufffd", "İI\u0130ß ΑΣ",
           "x" * 300, " " * 70 + "y" + "\n" * 40, long, "if (a) {\r\n\treturn b;\r\n}\r\n", "\u0378\U000E0001\uE000 unassigned"]
    bad = [b"\xff", b"a\xc3", b"\xe4\xbd x", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf ok \x80\x80", b"\xf4\x90\x80\x80 \xe0\x80"]
    pool = "aZ é\u0301\n\r\t '.,<|>0٣²ſK\u00a0\u200d界あ가ก्\U0001F600\u0660-_/"
    for _ in range(60):
        out.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 40))))
    return out, bad


def hf(all_texts, bad):
    res = {}
    for t, name in families():
        enc = lambda s, sp: t.encode(s, add_special_tokens=sp).ids
        every = all_texts + [b.decode(errors="replace") for b in bad]
        res[name] = {"ids": [enc(s, False) for s in every], "special": enc("a b", True),
                     "decoded": [t.decode(enc(s, False), skip_special_tokens=False) for s in every],
                     "pieces": t.decode([i for i in range(3, 300, 7)], skip_special_tokens=False)}
    return res


PRES = ["smollm", "gpt-2", "llama-bpe", "dbrx", "glm4", "qwen2", "qwen35", "deepseek-v3", "falcon", "default", "tekken",
        "gpt-4o", "deepseek-coder", "bloom", "viking", "seed-coder", "bailingmoe", "minicpm5"]


def llama_ids(path, items):
    import llama_cpp
    m = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    res = [m.tokenize(s.encode(), add_bos=False, special=True) for s in items]
    special = m.tokenize(b"a b", add_bos=True, special=True)
    return res, special


def gguf_meta():
    j = json.load(open("smollm/tokenizer.json"))
    vocab = sorted(j["model"]["vocab"], key=j["model"]["vocab"].get)
    types = [3 if s in SPECIAL else 1 for s in vocab]
    for s in ["ab", "bcd", "  "]:  # the longest token wins wherever it is, not the leftmost
        vocab.append(s)
        types.append(4)
    vocab.append("</s>")  # a normal token by its type, a control token to llama.cpp
    types.append(1)
    merges = [m if isinstance(m, str) else " ".join(m) for m in j["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": vocab,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": merges, "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1}


def write_gguf(path, meta, pre):
    import gguf
    w = gguf.GGUFWriter(path, "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(meta["tokenizer.ggml.tokens"])
    w.add_token_types(meta["tokenizer.ggml.token_type"])
    w.add_token_merges(meta["tokenizer.ggml.merges"])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def main():
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    good, bad = texts()
    dump = lambda name, v: open(name, "w").write(json.dumps(v, separators=(",", ":")) + "\n")
    dump("texts.json", {"text": good, "hex": [b.hex() for b in bad]})
    dump("hf.json", hf(good, bad))
    meta = gguf_meta()
    dump("gguf-meta.json", meta)
    every = [s for s in good if "\x00" not in s] + [b.decode(errors="replace") for b in bad]
    out = {}
    with tempfile.TemporaryDirectory() as d:
        for pre in PRES:
            write_gguf(d + "/x.gguf", meta, pre)
            ids, special = llama_ids(d + "/x.gguf", every + ["abcd <|end|>x  y</s>"])
            out[pre] = {"ids": ids, "special": special}
    dump("gguf.json", out)
    if len(sys.argv) > 1:
        ids, special = llama_ids(sys.argv[1], every)
        dump("smollm2.json", {"ids": ids, "special": special})


if __name__ == "__main__":
    main()
