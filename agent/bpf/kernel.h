// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//
// What the programs beside this need of the kernel: its helpers by their numbers, which never change, and its structures with the
// fields that are read and no others. Where a field lies is looked up in the running kernel's own description (BTF) when
// the program is loaded, so nothing here says an offset. A type named x___y is the kernel's type x as some versions have it.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline))

// Map definitions, as BTF describes them.
#define MAP_NUMBER(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum {
	MAP_TYPE_HASH = 1,
	MAP_TYPE_ARRAY = 2,
	MAP_TYPE_PERCPU_ARRAY = 6,
	MAP_TYPE_RINGBUF = 27,
};

enum {
	RINGBUF_NO_WAKEUP = 1,
	RINGBUF_FORCE_WAKEUP = 2,
	RINGBUF_AVAILABLE_DATA = 0,
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_user)(void *to, u32 size, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*bpf_probe_read_kernel_str)(void *to, u32 size, const void *from) = (void *)115;
static u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static u64 (*bpf_ringbuf_query)(void *ring, u64 flags) = (void *)134;

// Whether the running kernel's structure has the field.
#define FIELD_EXISTS(field) __builtin_preserve_field_info(field, 2)
// Where a field lies in its structure, in the running kernel.
#define FIELD_OFFSET(type, field) __builtin_preserve_field_info(((type *)0)->field, 0)
// How long a structure is, in the running kernel.
#define TYPE_SIZE(type) __builtin_preserve_type_info(*(type *)0, 1)
// Reads through any pointer, also one that the verifier knows nothing of; zero where there is nothing to read.
#define READ(from)                                                                            \
	({                                                                                    \
		__typeof__(from) value_;                                                      \
		if (bpf_probe_read_kernel(&value_, sizeof(value_), __builtin_preserve_access_index(&(from)))) \
			__builtin_memset(&value_, 0, sizeof(value_));                         \
		value_;                                                                       \
	})

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	u32 val;
} kuid_t;

typedef struct {
	int counter;
} atomic_t;

struct ns_common {
	u32 inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct mnt_namespace {
	struct ns_common ns;
};

struct module {
	char name[56];
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	u32 level;
	struct upid numbers[1];
};

struct nsproxy {
	struct mnt_namespace *mnt_ns;
};

struct cred {
	kuid_t uid;
	kuid_t euid;
};

struct kernfs_node {
	u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct tty_driver {
	int major;
	int minor_start;
};

struct tty_struct {
	int index;
	struct tty_driver *driver;
};

struct signal_struct {
	atomic_t live;
	struct tty_struct *tty;
};

struct super_block {
	u32 s_dev;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
};

struct timespec64 {
	s64 tv_sec;
	long tv_nsec;
};

// Before 6.6, before 6.11, and since.
struct inode___first {
	struct timespec64 i_ctime;
};

struct inode___second {
	struct timespec64 __i_ctime;
};

struct inode___third {
	s64 i_ctime_sec;
	u32 i_ctime_nsec;
};

struct qstr {
	const unsigned char *name;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	struct mnt_namespace *mnt_ns;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct fsnotify_group {
	u32 q_len;
};

struct file {
	void *private_data;
	struct inode *f_inode;
	struct path f_path;
};

struct fdtable {
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct fs_struct {
	struct path pwd;
};

struct vm_area_struct {
	unsigned long vm_flags;
	struct file *vm_file;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
	struct file *exe_file;
};

struct linux_binprm {
	const char *filename;
	const char *interp;
};

struct task_struct {
	int pid;
	int tgid;
	u64 start_boottime;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct mm_struct *mm;
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct cred *real_cred;
	struct css_set *cgroups;
	char comm[16];
};

// Where the kernel was built with audit.
struct task_struct___audit {
	kuid_t loginuid;
	u32 sessionid;
};

#pragma clang attribute pop
