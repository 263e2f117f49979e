// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

package bpf

//go:generate go tool bpf2go -go-package bpf -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror" -no-global-types -type limit -type magic -type class -type protocol -type preset -type state_kind -type row_bit -type verdict -type posture -type mode -type class_flag -type call_flag -type call_bit -type image_call -type image_group -type image_any -type image_class -type image_header -type image_source -type image_mark -type image_posture -type image_dry -type image_concern -type image_state -type image_set -type image_exception -type image_entry -type image_conditions -type image_condition -type image_args -type priority_bit -type arguments_state -type operation -type hook -type counter -type event_flag -type event_limit -type list_bit -type endpoint -type event -type fold_key -type fold_head -type fold -type fold_kind -type settings -type flow_key -type flow_entry -type owner -type mark_key -type mark -type label_flag -type label -type script_path -type clearing_state -type probe -type found_inode -type place -type place_key -type self -type self_limit Muster muster.bpf.c
//go:generate go tool bpf2go -go-package bpf -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -DPROBING" -no-global-types Probing muster.bpf.c
//go:generate go tool bpf2go -go-package bpf -cc clang-14 -strip llvm-strip-14 -target bpfel -cflags "-O2 -g -mcpu=v3 -Wall -Werror -DPROBING -DOLDER_KERNEL" -no-global-types Older muster.bpf.c
