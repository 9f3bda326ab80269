//! Which file systems a scan enters: not those whose files are the kernel's own state, and not
//! those whose files belong to another machine or to an ordinary process, which may hang.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Local,
    /// Files that are no files: procfs, sysfs and their like.
    Pseudo,
    /// Answered over the network or by a process (FUSE).
    Remote,
}

/// By the name that the table of mounts has for it. What is to be mounted at a look is remote too: nobody knows what comes.
pub fn is_remote(kind: &[u8]) -> bool {
    const REMOTE: [&[u8]; 14] = [
        b"nfs",
        b"cifs",
        b"smb",
        b"fuse",
        b"autofs",
        b"9p",
        b"ceph",
        b"lustre",
        b"gfs2",
        b"ocfs2",
        b"afs",
        b"coda",
        b"virtiofs",
        b"vboxsf",
    ];
    // `nfs4`, `smb3`, `fuse.sshfs`; a disk that is read through fuse is `fuseblk`, and a process answers for it as well.
    REMOTE.iter().any(|name| kind.starts_with(name))
}

/// By the magic number of statfs(2), from linux/magic.h and the drivers themselves.
pub fn classify(magic: i64) -> FileSystem {
    // The number is a 32-bit value that some platforms extend with its sign.
    match magic as u32 {
        0x0000_9fa0 // proc
        | 0x6265_6572 // sysfs
        | 0x0027_e0eb // cgroup
        | 0x6367_7270 // cgroup2
        | 0x0000_1cd1 // devpts
        | 0x7472_6163 // tracefs
        | 0x6462_6720 // debugfs
        | 0x7363_6673 // securityfs
        | 0xf97c_ff8c // selinuxfs
        | 0x4341_5d53 // smackfs
        | 0x5a3c_69f0 // apparmorfs
        | 0xcafe_4a11 // bpf
        | 0x6573_5543 // fusectl
        | 0x6265_6570 // configfs
        | 0x6165_676c // pstore
        | 0xde5e_81e4 // efivarfs
        | 0x1980_0202 // mqueue
        | 0x4249_4e4d // binfmt_misc
        | 0x0765_5821 // resctrl
        | 0x6e73_6673 // nsfs
        | 0x0000_0187 // autofs
        | 0x0bad_1dea // futexfs
        | 0x9584_58f6 // hugetlbfs
        | 0x6759_6969 // rpc_pipefs
        => FileSystem::Pseudo,
        0x0000_6969 // nfs
        | 0xff53_4d42 // cifs
        | 0xfe53_4d42 // smb2
        | 0x0000_517b // smb
        | 0x6573_5546 // fuse
        | 0x00c3_6400 // ceph
        | 0x0bd0_0bd0 // lustre
        | 0x0116_1970 // gfs2
        | 0x7461_636f // ocfs2
        | 0x0102_1997 // 9p
        | 0x5346_414f // afs
        | 0x6b41_4653 // kafs
        | 0x7375_7245 // coda
        | 0x0000_564c // ncp
        | 0x4750_4653 // gpfs
        | 0x786f_4256 // vboxsf
        | 0xaad7_aaea // panfs
        | 0x2003_0528 // orangefs
        => FileSystem::Remote,
        _ => FileSystem::Local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::file::Pinned;

    #[test]
    fn this_machines_procfs_and_sysfs_are_not_entered_and_its_root_is() {
        let class = |path: &str| classify(Pinned::open(path.as_bytes()).unwrap().file_system().unwrap());
        assert_eq!(class("/proc"), FileSystem::Pseudo);
        assert_eq!(class("/sys"), FileSystem::Pseudo);
        assert_eq!(class("/"), FileSystem::Local);
    }
}
