//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class capabilities.

/* Somebody asks whether a task could, not because it is about to. */
#define CAP_OPT_NOAUDIT 2

/* The kernel's own check comes first, so that what arrives here would be granted; in whichever user namespace:
 * a process does not get out of its subject by making one. */
SEC("lsm/capable")
int BPF_PROG(capable, const struct cred *cred, struct user_namespace *ns, int cap, unsigned int opts, int ret)
{
	u64 bit = 1ULL << (cap & 63);
	struct scratch *s;
	int deny;

	if (ret || !concerns_names(CLASS_CAPABILITIES, bit))
		return ret;
	s = scratch_take();
	if (!s)
		return fails_closed(CLASS_CAPABILITIES) ? -EPERM : 0;
	begin(s, CLASS_CAPABILITIES, OP_CAPABLE, HOOK_CAPABLE);
	object_named(&s->object[0], bit);
	s->quiet = opts & CAP_OPT_NOAUDIT ? QUIET_ALWAYS : QUIET_NOT;
	deny = judge_number(s);
	scratch_give(s);
	return deny ? -EPERM : 0;
}
