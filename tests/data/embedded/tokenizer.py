#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# tokenizer.py TEXT OUT.json: trains the embedded model's tokenizer, byte-level BPE of 2048 tokens with GPT-2's word
# pattern. Made with tokenizers 0.23.3; run once by make.sh.
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

text, out = sys.argv[1:]
t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
t.train([text], trainers.BpeTrainer(vocab_size=2048, special_tokens=["<|endoftext|>"], show_progress=False,
                                    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
t.save(out, pretty=False)
