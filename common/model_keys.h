/* SPDX-License-Identifier: Apache-2.0
 * Keys of a config.json, checked: a key that is missing or null leaves the value alone, one of a wrong type or
 * out of range is an error that names it. */
#ifndef NT_MODEL_KEYS_H
#define NT_MODEL_KEYS_H
#include <jansson.h>
#include <stdbool.h>
#include "common/block.h"
#include "common/err.h"

int key_int(const json_t *c, const char *key, int lo, int *v, struct err *e) NT_MUST_CHECK;
int key_number(const json_t *c, const char *key, double *v, struct err *e) NT_MUST_CHECK; /* above 0 */
int key_bool(const json_t *c, const char *key, bool *v, struct err *e) NT_MUST_CHECK;
/* The name of an activation function. */
int key_act(const json_t *c, const char *key, enum act *v, struct err *e) NT_MUST_CHECK;
/* Token ids may be a number or a list of which the first counts; -1: none. */
int key_token(const json_t *c, const char *key);
/* Nothing is computed with it: missing, null, false, an empty list, or the number that neutral spells. */
bool key_is_neutral(const json_t *j, const char *neutral);

struct model_config;
/* ---- model_layers.c: what several families have alike ---- */

/* sliding_window: missing means `otherwise`, null and 0 no window. */
int config_window(const json_t *j, int otherwise, int *window, struct err *e) NT_MUST_CHECK;
/* A number that null turns off. */
int config_softcap(const json_t *j, const char *key, double *cap, struct err *e) NT_MUST_CHECK;
/* Windows of layers by layer_types, if it is there: full_attention or sliding_attention. */
int config_layer_types(struct model_config *c, const json_t *j, int window, struct err *e) NT_MUST_CHECK;
/* The same; otherwise all layers but every period-th have the window. */
int config_sliding(struct model_config *c, const json_t *j, int window, int period,
                   struct err *e) NT_MUST_CHECK;
/* num_experts and num_experts_per_tok (0: these by default), norm_topk_prob, and with `sparse` which layers have
 * experts: decoder_sparse_step, mlp_only_layers. The widths of experts are set already; F is of the other layers, and
 * becomes 0 where there are none. */
int config_experts(struct model_config *c, const json_t *j, int experts, int per_token, bool sparse,
                   struct err *e) NT_MUST_CHECK;
/* use_sliding_window, max_window_layers, layer_types. */
int config_qwen_windows(struct model_config *c, const json_t *j, struct err *e) NT_MUST_CHECK;
/* Layers with a window have rotary table 1: sliding_attention of rope_parameters, or plain with this theta. */
int config_local_rope(struct model_config *c, const json_t *j, double theta, struct err *e) NT_MUST_CHECK;
/* From now on a model_type that is not known is taken for this family; false: there is no such family. */
bool model_assume_family(const char *model_type) NT_MUST_CHECK;
#endif
