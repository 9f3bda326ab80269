// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// Hooks on the operations themselves: tells which process does something to files, at the moment when it does it.
//
// Each hook stands by itself, so that a kernel that lacks one, or does not let it be attached, still has the others. They stand
// where an operation has succeeded: a process that merely tries is not told of. (The hooks of LSM come before the operation, and
// some of them before its permission: they would tell of everybody who tries.) Told is only what happens to entries of the folders that the reader
// names, and everywhere what no file event tells. A record that finds no room is counted in `lost`; nothing waits. What a record
// holds, and its bounds, stand in agent/src/kernel/file_probe/record.rs too.
#include "kernel.h"
#include "number.h"

enum kind {
	// Something of which the kernel tells all who watch files.
	EVENT = 1,
	// Attributes as chattr(1) sets them.
	FLAGS = 2,
	// Mapped so that it can be written to through memory.
	MAPPED = 3,
	// Something was mounted or unmounted.
	MOUNT = 4,
	// A module was loaded into the kernel, or taken out of it.
	MODULE = 5,
};

// What changes a file or folder, in the numbers of fsnotify, which are those of inotify.
#define MODIFY 0x2
#define ATTRIB 0x4
#define CLOSE_WRITE 0x8
#define MOVED_FROM 0x40
#define MOVED_TO 0x80
#define CREATE 0x100
#define DELETE 0x200
#define CHANGES (MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE)

#define PROT_WRITE 2
#define MAP_TYPE_OF_SHARING 0xf
#define MAP_SHARED 1
#define MAP_SHARED_VALIDATE 3
#define VM_SHARED 8

#define NAME_BYTES 256
#define NAMES 24
#define TEXT_BYTES 4096
// No name begins beyond this.
#define LAST_NAME (TEXT_BYTES - NAME_BYTES)

#define UNSET 0xffffffffu

// The names go up to the top of the file system.
#define WHOLE 1

struct operation {
	u32 kind;
	u32 pid;
	u64 at;
	u64 started;
	u64 folder;
	u64 inode;
	u32 device;
	u32 events;
	u32 uid;
	u32 euid;
	u32 mount_namespace;
	u32 flags;
	u32 text_bytes;
	u32 unused;
};

struct record {
	struct operation operation;
	// Names from the last to the first, each ended by a zero byte.
	char text[TEXT_BYTES];
	// How much of it is used: in memory, for the verifier's sake.
	volatile u32 used;
};

struct place {
	u64 inode;
	u32 device;
	u32 unused;
};

struct {
	MAP_NUMBER(type, MAP_TYPE_RINGBUF);
	MAP_NUMBER(max_entries, 1 << 18);
} ring SEC(".maps");

struct {
	MAP_NUMBER(type, MAP_TYPE_PERCPU_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct record);
} scratch SEC(".maps");

struct {
	MAP_NUMBER(type, MAP_TYPE_ARRAY);
	MAP_NUMBER(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u64);
} lost SEC(".maps");

// The folders whose entries are told of.
struct {
	MAP_NUMBER(type, MAP_TYPE_HASH);
	MAP_NUMBER(max_entries, 1024);
	MAP_TYPE(key, struct place);
	MAP_TYPE(value, u32);
} folders SEC(".maps");

// More data than this in the ring wakes the reader.
const volatile u64 wake_above = 1 << 16;

INLINE void count_lost(void)
{
	u32 first = 0;
	u64 *count = bpf_map_lookup_elem(&lost, &first);
	if (count)
		__sync_fetch_and_add(count, 1);
}

INLINE int is_told_of(struct inode *folder)
{
	struct super_block *super = READ(folder->i_sb);
	struct place place = {.inode = READ(folder->i_ino), .device = READ(super->s_dev)};
	return bpf_map_lookup_elem(&folders, &place) != 0;
}

// The record of what this process does now; nothing where it is not to be told of.
INLINE struct record *begin(u32 kind)
{
	u32 first = 0;
	struct task_struct *task = (void *)bpf_get_current_task();
	struct task_struct *leader = READ(task->group_leader);
	u32 number = number_of(leader);
	if (!number)
		return 0;
	struct record *record = bpf_map_lookup_elem(&scratch, &first);
	if (!record) {
		count_lost();
		return 0;
	}
	struct operation *operation = &record->operation;
	__builtin_memset(operation, 0, sizeof(*operation));
	operation->kind = kind;
	operation->pid = number;
	operation->at = bpf_ktime_get_boot_ns();
	operation->started = READ(leader->start_boottime);
	struct cred *credentials = READ(task->real_cred);
	operation->uid = READ(credentials->uid.val);
	operation->euid = READ(credentials->euid.val);
	struct nsproxy *namespaces = READ(task->nsproxy);
	struct mnt_namespace *mounts = READ(namespaces->mnt_ns);
	operation->mount_namespace = READ(mounts->ns.inum);
	record->used = 0;
	return record;
}

INLINE void name_folder(struct operation *operation, struct inode *folder)
{
	struct super_block *super = READ(folder->i_sb);
	operation->folder = READ(folder->i_ino);
	operation->device = READ(super->s_dev);
}

INLINE void append_name(struct record *record, const unsigned char *name)
{
	u32 used = record->used;
	if (used > LAST_NAME)
		return;
	long length = bpf_probe_read_kernel_str(record->text + used, NAME_BYTES, name);
	if (length > 0 && length <= NAME_BYTES)
		record->used = used + length;
}

INLINE void end(struct record *record, u64 wake)
{
	u32 used = record->used;
	if (used > TEXT_BYTES)
		used = TEXT_BYTES;
	record->operation.text_bytes = used;
	if (!wake)
		wake = bpf_ringbuf_query(&ring, RINGBUF_AVAILABLE_DATA) > wake_above ? RINGBUF_FORCE_WAKEUP : RINGBUF_NO_WAKEUP;
	if (bpf_ringbuf_output(&ring, record, sizeof(struct operation) + used, wake))
		count_lost();
}

// Where nobody watches the file system the kernel does not come here. The file event that comes of it wakes the reader. Kernels before 6.6 let nothing be attached to a function of seven arguments.
SEC("fentry/fsnotify")
int on_event(u64 *ctx)
{
	u32 events = (u32)ctx[0] & CHANGES;
	struct inode *folder = (void *)ctx[3];
	struct qstr *name = (void *)ctx[4];
	struct inode *inode = (void *)ctx[5];
	if (!events || !folder || !name || !is_told_of(folder))
		return 0;
	struct record *record = begin(EVENT);
	if (!record)
		return 0;
	record->operation.events = events;
	name_folder(&record->operation, folder);
	record->operation.inode = inode ? READ(inode->i_ino) : 0;
	append_name(record, READ(name->name));
	end(record, 0);
	return 0;
}

// Stands for the one above where that cannot be had; entries that come, go or are renamed do not pass here.
SEC("fentry/__fsnotify_parent")
int on_child(u64 *ctx)
{
	struct dentry *entry = (void *)ctx[0];
	u32 events = (u32)ctx[1] & CHANGES;
	if (!events)
		return 0;
	struct dentry *parent = READ(entry->d_parent);
	struct inode *folder = READ(parent->d_inode);
	if (!is_told_of(folder))
		return 0;
	struct record *record = begin(EVENT);
	if (!record)
		return 0;
	record->operation.events = events;
	name_folder(&record->operation, folder);
	struct inode *inode = READ(entry->d_inode);
	record->operation.inode = READ(inode->i_ino);
	append_name(record, READ(entry->d_name.name));
	end(record, 0);
	return 0;
}

SEC("fexit/vfs_fileattr_set")
int on_flags(u64 *ctx)
{
	struct dentry *entry = (void *)ctx[1];
	if ((int)ctx[3])
		return 0;
	struct record *record = begin(FLAGS);
	if (!record)
		return 0;
	struct dentry *folder = READ(entry->d_parent);
	name_folder(&record->operation, READ(folder->d_inode));
	struct inode *inode = READ(entry->d_inode);
	record->operation.inode = READ(inode->i_ino);
	for (u32 step = 0; step < NAMES; step++) {
		struct dentry *parent = READ(entry->d_parent);
		if (entry == parent) {
			record->operation.flags = WHOLE;
			break;
		}
		append_name(record, READ(entry->d_name.name));
		entry = parent;
	}
	end(record, RINGBUF_FORCE_WAKEUP);
	return 0;
}

INLINE void tell_mapped(struct file *file)
{
	struct dentry *entry = READ(file->f_path.dentry);
	struct dentry *parent = READ(entry->d_parent);
	struct inode *folder = READ(parent->d_inode);
	if (!is_told_of(folder))
		return;
	struct record *record = begin(MAPPED);
	if (!record)
		return;
	name_folder(&record->operation, folder);
	struct inode *inode = READ(file->f_inode);
	record->operation.inode = READ(inode->i_ino);
	append_name(record, READ(entry->d_name.name));
	end(record, RINGBUF_FORCE_WAKEUP);
}

SEC("fexit/security_mmap_file")
int on_mapping(u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	u32 sharing = ctx[2] & MAP_TYPE_OF_SHARING;
	if ((int)ctx[3] || !file || !(ctx[1] & PROT_WRITE) || (sharing != MAP_SHARED && sharing != MAP_SHARED_VALIDATE))
		return 0;
	tell_mapped(file);
	return 0;
}

SEC("fexit/security_file_mprotect")
int on_protection(u64 *ctx)
{
	struct vm_area_struct *area = (void *)ctx[0];
	if ((int)ctx[3] || !(ctx[1] & PROT_WRITE))
		return 0;
	struct file *file = READ(area->vm_file);
	if (file && (READ(area->vm_flags) & VM_SHARED))
		tell_mapped(file);
	return 0;
}

INLINE void tell_mount(void)
{
	struct record *record = begin(MOUNT);
	if (record)
		end(record, RINGBUF_FORCE_WAKEUP);
}

SEC("fexit/path_mount")
int on_mount(u64 *ctx)
{
	if (!(int)ctx[5])
		tell_mount();
	return 0;
}

SEC("fexit/path_umount")
int on_unmount(u64 *ctx)
{
	if (!(int)ctx[2])
		tell_mount();
	return 0;
}

// Last that is asked before a mount is moved or a new one attached; by then its maker is known to be allowed to.
SEC("fexit/security_move_mount")
int on_move(u64 *ctx)
{
	if (!(int)ctx[2])
		tell_mount();
	return 0;
}

INLINE void tell_module(struct module *module)
{
	struct record *record = begin(MODULE);
	if (!record)
		return;
	append_name(record, (unsigned char *)module + FIELD_OFFSET(struct module, name));
	end(record, RINGBUF_FORCE_WAKEUP);
}

// Before its own code runs, which may take its time.
SEC("tp_btf/module_load")
int on_module(u64 *ctx)
{
	tell_module((void *)ctx[0]);
	return 0;
}

SEC("tp_btf/module_free")
int on_module_gone(u64 *ctx)
{
	tell_module((void *)ctx[0]);
	return 0;
}

// The helpers that read memory are for programs under a licence that the kernel's fits.
char licence[] SEC("license") = "GPL";
