// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// By which number a process is told.
#pragma once
#include "kernel.h"

// The pid namespace in whose numbers processes are told; one outside of it is not told of.
const volatile u32 own_pid_namespace = 0;

// The process's number in the agent's pid namespace, 0 where it has none.
INLINE u32 number_of(struct task_struct *leader)
{
	// By READ, here and below: kernels before 6.2 let nothing unknown be added to a pointer that they know the type of.
	struct pid *pid = READ(leader->thread_pid);
	char *numbers = (char *)pid + FIELD_OFFSET(struct pid, numbers);
	u32 level = READ(pid->level);
	// Namespaces are nested 32 deep at most; the outermost comes first.
	for (u32 at = 0; at <= 32; at++) {
		if (at > level)
			break;
		struct upid *one = (struct upid *)(numbers + at * TYPE_SIZE(struct upid));
		struct pid_namespace *ns = READ(one->ns);
		if (READ(ns->ns.inum) == own_pid_namespace)
			return READ(one->nr);
	}
	return 0;
}
