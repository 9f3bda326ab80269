// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// The process feed: tells of each process made, each program executed, and each process ended, in the order in which the
// kernel did it and before the process can do anything more. Whole processes only, never their threads.
//
// It reads and decides nothing. A record that finds no room is counted in `lost`, and so is one that the kernel does not let
// be made; nothing waits. The reader (agent/src/kernel/process_probe.rs) is woken only when the ring fills: processes start
// all the time and mostly nobody asks. What a record holds, and its bounds, stand in process_probe/record.rs too.
#include "kernel.h"
#include "number.h"

enum kind {
	FORK = 1,
	EXEC = 2,
	EXIT = 3,
};

#define UNSET 0xffffffffu

// How a path is told: its names from the last to the first, each ended by a zero byte.
enum {
	// It has more names than were followed.
	PATH_CUT = 1,
	// Its mount is not one of the process's mount namespace.
	PATH_ELSEWHERE = 2,
	// It lies in no folder at all, as a memfd.
	PATH_NOWHERE = 4,
	// It had been removed.
	PATH_REMOVED = 8,
	// It could be read.
	PATH_KNOWN = 16,
};

#define NAME_BYTES 256
#define PATH_BYTES 4096
#define PATH_STEPS 64
#define SCRIPT_BYTES 4096
#define ARGUMENT_BYTES 4096

struct head {
	u32 kind;
	u32 pid;
	u64 at;
	u64 started;
	u64 cgroup;
	u32 uid;
	u32 euid;
	u32 login_uid;
	u32 session;
	u32 terminal;
	u32 pid_namespace;
	u32 mount_namespace;
	u32 parent;
	u64 parent_started;
	// A time shortly before `at`.
	u64 queued_since;
	// How many file events waited at some moment between the two times; UNSET where that is not known.
	u32 queued;
	// Its number in the first pid namespace.
	u32 first_number;
};

struct program {
	u64 inode;
	s64 changed_seconds;
	u32 changed_nanos;
	u32 device;
	u32 path_bytes;
	u32 cwd_bytes;
	u32 script_bytes;
	u32 argument_bytes;
	u32 path_flags;
	u32 cwd_flags;
	char name[16];
};

// The four texts follow one another. Each piece may be as long as its bound wherever it begins, which is what the verifier
// needs to see.
#define TEXT_BYTES (2 * (PATH_BYTES + NAME_BYTES) + SCRIPT_BYTES + ARGUMENT_BYTES)

struct execution {
	struct head head;
	struct program program;
	char text[TEXT_BYTES];
	// How much of the text is used; the record ends before this. Kept in memory, and therefore anything at all to the
	// verifier: it then need not follow each length that each name of a path may have.
	volatile u32 used;
};

struct {
	MAP_NUMBER(type, MAP_TYPE_RINGBUF);
	MAP_NUMBER(max_entries, 1 << 19);
} ring SEC(".maps");

struct {
	MAP_NUMBER(type, MAP_TYPE_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct execution);
} scratch SEC(".maps");

struct {
	MAP_NUMBER(type, MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} lost SEC(".maps");

// The queue of file events: a fanotify group of the agent's, as it names it, and once it was found the group itself.
struct queue {
	u32 descriptor;
	u32 process;
	u64 group;
};

struct {
	MAP_NUMBER(type, MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct queue);
} queue SEC(".maps");

// When a program that started last woke the reader.
struct {
	MAP_NUMBER(type, MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} woken SEC(".maps");

// More data than this in the ring wakes the reader.
const volatile u64 wake_above = 1 << 17;
// So does a program that starts so long after the last that did, in nanoseconds. The reader then finds its other queues empty, and what comes in
// those is known to be younger than the program.
const volatile u64 wake_after = 300000;

INLINE void count_lost(void)
{
	u32 first = 0;
	u64 *count = bpf_map_lookup_elem(&lost, &first);
	if (count)
		__sync_fetch_and_add(count, 1);
}

INLINE int is_to_wake(u32 kind)
{
	u32 first = 0;
	u64 *last = kind == EXEC ? bpf_map_lookup_elem(&woken, &first) : 0;
	u64 now = bpf_ktime_get_boot_ns();
	if (!last || now - *last < wake_after)
		return 0;
	*last = now;
	return 1;
}

INLINE void tell(void *record, u64 size, u32 kind)
{
	u64 wake = RINGBUF_NO_WAKEUP;
	if (is_to_wake(kind) || bpf_ringbuf_query(&ring, RINGBUF_AVAILABLE_DATA) > wake_above)
		wake = RINGBUF_FORCE_WAKEUP;
	if (bpf_ringbuf_output(&ring, record, size, wake))
		count_lost();
}

// Of the innermost pid namespace that the process lies in.
INLINE u32 pid_namespace_of(struct task_struct *leader)
{
	struct pid *pid = READ(leader->thread_pid);
	char *numbers = (char *)pid + FIELD_OFFSET(struct pid, numbers);
	struct upid *last = (struct upid *)(numbers + READ(pid->level) * TYPE_SIZE(struct upid));
	struct pid_namespace *ns = READ(last->ns);
	return READ(ns->ns.inum);
}

// Encoded as /proc/PID/stat has it.
INLINE u32 terminal_of(struct task_struct *task)
{
	struct tty_struct *tty = READ(task->signal->tty);
	if (!tty)
		return 0;
	struct tty_driver *driver = READ(tty->driver);
	u32 major = READ(driver->major);
	u32 minor = READ(driver->minor_start) + READ(tty->index);
	return (minor & 0xff) | (major << 8) | ((minor & ~0xffu) << 12);
}

INLINE u32 queued_now(void)
{
	u32 first = 0;
	struct queue *found = bpf_map_lookup_elem(&queue, &first);
	struct fsnotify_group *group = found ? (void *)found->group : 0;
	u32 length;
	if (!group || !FIELD_EXISTS(group->q_len))
		return UNSET;
	if (bpf_probe_read_kernel(&length, sizeof(length), __builtin_preserve_access_index(&group->q_len)))
		return UNSET;
	return length;
}

// False for a process that is not to be told of.
INLINE int fill(struct head *head, struct task_struct *task, u32 kind)
{
	struct task_struct *leader = task->group_leader;
	u32 number = number_of(leader);
	if (!number)
		return 0;
	head->kind = kind;
	head->pid = number;
	head->first_number = leader->tgid;
	// Of what a process does when it ends nothing comes before or after for certain: it closes its files later.
	head->queued_since = kind == EXIT ? 0 : bpf_ktime_get_boot_ns();
	head->queued = kind == EXIT ? UNSET : queued_now();
	head->at = bpf_ktime_get_boot_ns();
	head->started = leader->start_boottime;
	head->uid = task->real_cred->uid.val;
	head->euid = task->real_cred->euid.val;
	struct task_struct___audit *audited = (void *)task;
	head->login_uid = UNSET;
	head->session = UNSET;
	if (FIELD_EXISTS(audited->loginuid)) {
		head->login_uid = READ(audited->loginuid.val);
		head->session = READ(audited->sessionid);
	}
	head->cgroup = task->cgroups->dfl_cgrp->kn->id;
	head->terminal = terminal_of(task);
	head->pid_namespace = pid_namespace_of(leader);
	head->mount_namespace = task->nsproxy->mnt_ns->ns.inum;
	head->parent = 0;
	head->parent_started = 0;
	return 1;
}

// Appends the names of a path, from the last to the first, and returns what is to be said of it. `limit` bounds where the last
// name may begin.
INLINE u32 append_path(struct execution *record, u32 limit, struct vfsmount *mounted, struct dentry *entry, struct mnt_namespace *own)
{
	if (!entry || !mounted)
		return 0;
	u32 flags = PATH_CUT;
	u32 removed = READ(entry->d_hash.pprev) ? 0 : PATH_REMOVED;
	struct dentry *root = READ(mounted->mnt_root);
	// The top of a mount is in no list of names, like what was removed.
	if (entry == root)
		removed = 0;
	for (u32 step = 0; step < PATH_STEPS; step++) {
		if (entry == root) {
			// On with the folder that this is mounted on.
			struct mount *mount = (struct mount *)((char *)mounted - FIELD_OFFSET(struct mount, mnt));
			struct mount *below = READ(mount->mnt_parent);
			if (below == mount || !below) {
				flags = READ(mount->mnt_ns) == own ? 0 : PATH_ELSEWHERE;
				break;
			}
			entry = READ(mount->mnt_mountpoint);
			mounted = (struct vfsmount *)((char *)below + FIELD_OFFSET(struct mount, mnt));
			root = READ(mounted->mnt_root);
			continue;
		}
		u32 used = record->used;
		if (used > limit)
			break;
		long length = bpf_probe_read_kernel_str(record->text + used, NAME_BYTES, READ(entry->d_name.name));
		if (length <= 0 || length > NAME_BYTES)
			break;
		record->used = used + length;
		struct dentry *parent = READ(entry->d_parent);
		if (entry == parent) {
			flags = PATH_NOWHERE;
			break;
		}
		entry = parent;
	}
	return flags | removed | PATH_KNOWN;
}

INLINE void fill_file(struct program *program, struct file *file)
{
	struct inode *inode = READ(file->f_inode);
	program->inode = READ(inode->i_ino);
	struct super_block *super = READ(inode->i_sb);
	program->device = READ(super->s_dev);
	struct inode___first *first = (void *)inode;
	struct inode___second *second = (void *)inode;
	struct inode___third *third = (void *)inode;
	if (FIELD_EXISTS(third->i_ctime_sec)) {
		program->changed_seconds = READ(third->i_ctime_sec);
		// The top bit is the kernel's own mark.
		program->changed_nanos = READ(third->i_ctime_nsec) & 0x7fffffff;
	} else if (FIELD_EXISTS(second->__i_ctime)) {
		program->changed_seconds = READ(second->__i_ctime.tv_sec);
		program->changed_nanos = READ(second->__i_ctime.tv_nsec);
	} else if (FIELD_EXISTS(first->i_ctime)) {
		program->changed_seconds = READ(first->i_ctime.tv_sec);
		program->changed_nanos = READ(first->i_ctime.tv_nsec);
	} else {
		program->changed_seconds = -1;
		program->changed_nanos = 0;
	}
}

// A descriptor means something in its own process alone, so this waits until that one starts a thread.
INLINE void find_queue(struct task_struct *maker)
{
	u32 first = 0;
	struct queue *asked = bpf_map_lookup_elem(&queue, &first);
	if (!asked || !asked->process || asked->group)
		return;
	struct task_struct *leader = maker->group_leader;
	if (number_of(leader) != asked->process)
		return;
	struct files_struct *files = READ(maker->files);
	struct fdtable *table = READ(files->fdt);
	struct file **open = READ(table->fd);
	u32 descriptor = asked->descriptor;
	struct file *file = READ(open[descriptor]);
	asked->group = (u64)READ(file->private_data);
}

SEC("tp_btf/sched_process_fork")
int on_fork(u64 *ctx)
{
	struct task_struct *maker = (void *)ctx[0];
	struct task_struct *child = (void *)ctx[1];
	find_queue(maker);
	if (child->pid != child->tgid)
		return 0;
	struct head head;
	if (!fill(&head, child, FORK))
		return 0;
	struct task_struct *leader = maker->group_leader;
	head.parent = number_of(leader);
	head.parent_started = head.parent ? leader->start_boottime : 0;
	tell(&head, sizeof(head), FORK);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int on_exit(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	// Threads of the process that have not ended. Two that end at the same moment may both find none, and both tell.
	if (task->signal->live.counter > 0)
		return 0;
	struct head head;
	if (!fill(&head, task, EXIT))
		return 0;
	tell(&head, sizeof(head), EXIT);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int on_exec(u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *binary = (void *)ctx[2];
	u32 first = 0;
	struct execution *record = bpf_map_lookup_elem(&scratch, &first);
	if (!record) {
		count_lost();
		return 0;
	}
	if (!fill(&record->head, task, EXEC))
		return 0;

	struct program *program = &record->program;
	struct mnt_namespace *own = READ(task->nsproxy->mnt_ns);
	struct mm_struct *memory = task->mm;
	__builtin_memset(program, 0, sizeof(*program));
	bpf_probe_read_kernel(program->name, sizeof(program->name), task->comm);

	record->used = 0;
	struct file *file = READ(memory->exe_file);
	if (file) {
		fill_file(program, file);
		program->path_flags = append_path(record, PATH_BYTES, READ(file->f_path.mnt), READ(file->f_path.dentry), own);
		program->path_bytes = record->used;
	}

	struct fs_struct *fs = READ(task->fs);
	program->cwd_flags = append_path(record, 2 * PATH_BYTES, READ(fs->pwd.mnt), READ(fs->pwd.dentry), own);
	program->cwd_bytes = record->used - program->path_bytes;

	// The kernel keeps one name for both unless it started an interpreter for what was asked.
	const char *asked = READ(binary->filename);
	u32 used = record->used;
	if (asked != READ(binary->interp) && used <= 2 * (PATH_BYTES + NAME_BYTES)) {
		long length = bpf_probe_read_kernel_str(record->text + used, SCRIPT_BYTES, asked);
		if (length > 0 && length <= SCRIPT_BYTES) {
			program->script_bytes = length;
			record->used = used + length;
		}
	}

	u64 from = READ(memory->arg_start);
	u64 size = READ(memory->arg_end) - from;
	if (size > ARGUMENT_BYTES)
		size = ARGUMENT_BYTES;
	used = record->used;
	if (size > 0 && used <= 2 * (PATH_BYTES + NAME_BYTES) + SCRIPT_BYTES && !bpf_probe_read_user(record->text + used, size, (void *)from)) {
		program->argument_bytes = size;
		record->used = used + size;
	}

	used = record->used;
	if (used > TEXT_BYTES)
		used = TEXT_BYTES;
	tell(record, sizeof(struct head) + sizeof(struct program) + used, EXEC);
	return 0;
}

// The helpers that read memory are for programs under a licence that the kernel's fits.
char licence[] SEC("license") = "GPL";
