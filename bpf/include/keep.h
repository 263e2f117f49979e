// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// clang drops the BTF of types that no code uses; Go needs all of abi.h.
#ifndef MUSTER_KEEP_H
#define MUSTER_KEEP_H

#define KEEP(kind, name) const kind name *keep_##name __attribute__((unused))

KEEP(enum, limit);
KEEP(enum, magic);
KEEP(enum, class);
KEEP(enum, protocol);
KEEP(enum, preset);
KEEP(enum, state_kind);
KEEP(enum, row_bit);
KEEP(enum, verdict);
KEEP(enum, posture);
KEEP(enum, mode);
KEEP(enum, class_flag);
KEEP(enum, operation);
KEEP(enum, hook);
KEEP(enum, counter);
KEEP(enum, event_flag);
KEEP(enum, event_limit);
KEEP(enum, list_bit);
KEEP(enum, label_flag);
KEEP(enum, fold_kind);
KEEP(enum, priority_bit);
KEEP(enum, arguments_state);
KEEP(enum, call_flag);
KEEP(enum, call_bit);
KEEP(enum, place);
KEEP(enum, self_limit);
KEEP(struct, image_call);
KEEP(struct, image_group);
KEEP(struct, image_any);
KEEP(struct, image_class);
KEEP(struct, image_header);
KEEP(struct, image_source);
KEEP(struct, image_mark);
KEEP(struct, image_concern);
KEEP(struct, image_posture);
KEEP(struct, image_dry);
KEEP(struct, image_state);
KEEP(struct, image_set);
KEEP(struct, image_exception);
KEEP(struct, image_entry);
KEEP(struct, image_conditions);
KEEP(struct, image_condition);
KEEP(struct, image_args);
KEEP(struct, found_inode);
KEEP(struct, fold);
KEEP(struct, clearing_state);

#endif
