# SPDX-License-Identifier: Apache-2.0
#
# Quantize and tweak on the quantized stream, one layer after the other, as make targets:
#
#   make -f norm-tweak.mk MODEL=model.gguf TOKENS=calib.nts BITS=3 GROUP=128 DIR=out
#
# leaves DIR/q.nts, whose records are those of the ring in nt(7). Interrupt or kill it at any time; the same command goes
# on where it was, and at most the layer at work is lost. A changed option redoes what depends on it and nothing else.
#
#   MODEL TOKENS      the float model; tokens of nt-gen-calib (no blanks in paths)
#   DIR               where everything goes (norm-tweak)
#   METHOD BITS GROUP of nt-quant (gptq, 3, 128); QUANT_OPTS more of its options, such as --act-order
#   COLLECT_OPTS TWEAK_OPTS   further options of nt-collect and nt-tweak, such as '--loss nmse --lr 1e-3'
#   THREADS           of each stage; the result does not depend on it
#   NT_RUN            put before every command, such as 'srun -c 16' (default: nothing)
#   ring=1            all layers at once, in three processes around a FIFO (ring.sh): faster, but nothing to go on from
#
# Layer l is three targets: DIR/stats.l.nts, DIR/quant.l.nts, and together DIR/q.l.nts with DIR/acts.(l+1).nts, the next
# layer's input, which appears first. What a layer leaves is removed once the next one is done, except for layer 0's
# statistics and codes, which other options can use again. The verdict over all layers comes with the last one, whose
# held-out boundary was carried along; DIR/q.nts has it in its trailer.
#
# To go on elsewhere, at any point and with nothing running,
#
#   make -f norm-tweak.mk bundle to=run.tar.zst (the variables as before)
#
# puts what is done into one file, the tokens too, and on the other machine
#
#   make -f norm-tweak.mk from=run.tar.zst MODEL=/there/model.gguf DIR=out
#
# unpacks it to DIR, which must be new (or unpacked from the same bundle), and goes on. Options are those of the run
# unless given; another model or other tokens are refused. The result has the same bytes.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

here := $(dir $(lastword $(MAKEFILE_LIST)))
DIR    ?= norm-tweak
ifdef from
$(if $(shell nt-pack --unbundle '$(from)' -o '$(DIR)' && echo done),,$(error cannot continue from $(from)))
# of the run that was bundled; nt-pack lets nothing but harmless characters into these files
quant_was   := $(file <$(DIR)/quant.stamp)
collect_was := $(file <$(DIR)/collect.stamp)
tweak_was   := $(file <$(DIR)/tweak.stamp)
endif
TOKENS       ?= $(wildcard $(DIR)/tokens.nts)
METHOD       ?= $(or $(word 1,$(quant_was)),gptq)
BITS         ?= $(or $(word 2,$(quant_was)),3)
GROUP        ?= $(or $(word 3,$(quant_was)),128)
QUANT_OPTS   ?= $(wordlist 4,$(words 1 $(quant_was)),$(quant_was))
COLLECT_OPTS ?= $(strip $(collect_was))
TWEAK_OPTS   ?= $(strip $(tweak_was))
THREADS ?=
NT_RUN ?=

$(if $(MODEL),,$(error MODEL is not set: the float model))
$(if $(TOKENS),,$(error TOKENS is not set: a tokens stream, see nt-gen-calib(1)))

common := -m $(MODEL) $(if $(THREADS),-j $(THREADS))
quant  := -q $(METHOD) -b $(BITS) -g $(GROUP) $(QUANT_OPTS)
model_files := $(if $(wildcard $(MODEL)/.),$(wildcard $(MODEL)/*.json $(MODEL)/*.safetensors),$(MODEL))

.PHONY: all bundle FORCE
all: $(DIR)/q.nts
FORCE:
bundle:
	$(if $(to),,$(error to is not set: the bundle))nt-pack --bundle '$(to)' $(DIR) $(if $(wildcard $(DIR)/tokens.nts),,$(TOKENS))

# ---- stamps: rewritten only when their text changes ----
stamps := $(addprefix $(DIR)/,paths.stamp collect.stamp quant.stamp tweak.stamp)
text = $(subst ','\'',$(strip $($(basename $(@F))_text)))
paths_text   := $(MODEL) $(TOKENS)
collect_text := $(COLLECT_OPTS)
quant_text   := $(METHOD) $(BITS) $(GROUP) $(QUANT_OPTS)
tweak_text   := $(TWEAK_OPTS)
$(stamps): FORCE
	@mkdir -p $(DIR); echo '$(text)' >$@.tmp; if cmp -s $@.tmp $@; then rm $@.tmp; else mv $@.tmp $@; fi

# What the method wants to know; statistics depend on this, not on the other options of nt-quant. Nothing: they are empty.
$(DIR)/needs.stamp: $(DIR)/quant.stamp
	@nt-quant $(quant) --needs >$@.tmp; if cmp -s $@.tmp $@; then rm $@.tmp; else mv $@.tmp $@; fi

# Which model and which tokens these are, by content, and how many layers there are.
$(DIR)/input.mk: $(DIR)/paths.stamp $(model_files) $(TOKENS)
	@header=$$(nt-quant $(common) --progress none -q rtn -b 8 -g 0 --layers 0:1 | nt-stream ls --header | sed -n 1p); \
	tokens=$$(sha256sum <$(TOKENS)); { sed 's/.*"model":{\([^}]*\)}.*/\1/' <<<"$$header" | \
	grep -oE '"(arch|layers|hidden|vocab|config_sha256|sample_xxh3)":[A-Za-z0-9_."-]+' | tr -d '"'; \
	echo "tokens:$${tokens%% *}"; } >$(DIR)/input.tmp; \
	if cmp -s $(DIR)/input.tmp $(DIR)/input.stamp; then rm $(DIR)/input.tmp; \
	elif [ -n '$(from)' ] && [ -e $(DIR)/input.stamp ]; then \
	echo "$(MODEL) or $(TOKENS) is not what $(from) was made with: $$(diff $(DIR)/input.stamp $(DIR)/input.tmp | \
	sed -n 's/^[<>] //p' | cut -c 1-40 | paste -sd ' ')" >&2; rm $(DIR)/input.tmp; exit 65; \
	else mv $(DIR)/input.tmp $(DIR)/input.stamp; fi; \
	sed -n 's/^layers:/LAYERS := /p' $(DIR)/input.stamp >$@.tmp; mv $@.tmp $@
$(DIR)/input.stamp: $(DIR)/input.mk
	@:
include $(DIR)/input.mk

ifdef ring
$(DIR)/q.nts: $(stamps) $(DIR)/input.stamp
	COLLECT_OPTS='$(if $(THREADS),-j $(THREADS)) $(COLLECT_OPTS)' $(here)ring.sh $(MODEL) $(TOKENS) $@ $(if $(THREADS),-j $(THREADS)) $(quant) \
	  -- $(if $(THREADS),-j $(THREADS)) $(TWEAK_OPTS)
else
# ---- layers ----
next   = $(shell expr $1 + 1)
before = $(shell expr $1 - 1)
numbers := $(if $(LAYERS),$(shell seq 0 $(shell expr $(LAYERS) - 1)))
last    := $(lastword $(numbers))

# $1 the layer, $2 the next one, $3 the one before, $4 its input (layer 0: nothing), $5 the next one's (last: nothing)
define layer
.SECONDARY: $(DIR)/stats.$1.nts $(DIR)/quant.$1.nts $4
$(DIR)/stats.$1.nts: $(DIR)/collect.stamp $(DIR)/needs.stamp $(DIR)/input.stamp $4
	if grep -q . $(DIR)/needs.stamp; then $(NT_RUN) nt-collect $(common) --tokens $(TOKENS) --layers $1:$2 \
	  $(if $4,--acts-in $4) --want "$$$$(cat $(DIR)/needs.stamp),targets" $(COLLECT_OPTS) -o $$@; else : >$$@; fi
$(DIR)/quant.$1.nts: $(DIR)/stats.$1.nts $(DIR)/quant.stamp
	$(NT_RUN) nt-quant $(common) $(quant) --layers $1:$2 $$$$([ ! -s $$< ] || echo $$<) -o $$@
$(DIR)/q.$1.nts $5 &: $(DIR)/quant.$1.nts $(DIR)/tweak.stamp $(DIR)/input.stamp $4
	$(NT_RUN) nt-tweak $(common) --tokens $(TOKENS) --layers $1:$2 $(if $4,--acts-in $4) \
	  --acts-out $(DIR)/acts.$2.nts $(TWEAK_OPTS) $$< -o $(DIR)/q.$1.nts
	@rm -f $(DIR)/acts.$3.nts $(if $(filter-out 0,$3),$(DIR)/stats.$3.nts $(DIR)/quant.$3.nts)
endef
acts = $(if $(filter-out 0,$1),$(if $(filter $1,$(numbers)),$(DIR)/acts.$1.nts))
$(foreach l,$(numbers),$(eval $(call layer,$l,$(call next,$l),$(call before,$l),$(call acts,$l),$(call acts,$(call next,$l)))))

# What a kill between a rename and the removals left goes now.
$(DIR)/q.nts: $(numbers:%=$(DIR)/q.%.nts)
	nt-stream cat $^ -o $@
	@cd $(DIR) && rm -f acts.*.nts .*.nt-[0-9]* *.tmp $(foreach l,$(filter-out 0,$(numbers)),stats.$l.nts quant.$l.nts)
endif
