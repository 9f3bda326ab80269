//! The disk of one host: an ext4 image. Whoever changes it here must know that its host is off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use trueline_tests::wait;

use crate::root::CachedRoot;
use crate::teardown::loop_devices;
use crate::tool::{Call, copy_sparse};

/// For the kernel to let go of a disk whose host is off.
const DETACHED: Duration = Duration::from_secs(20);

/// A mount namespace of the script's own: nothing stays mounted, however it ends.
const EDIT: &str = r#"
image=$1 folder=$2 script=$3
shift 3
mount -o loop "$image" "$folder"
cd "$folder"
eval "$script"
cd /
umount "$folder"
"#;

#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    folder: PathBuf,
}

impl Image {
    /// In `folder`, which is the host's own.
    pub async fn copy_of(root: &CachedRoot, folder: &Path) -> anyhow::Result<Self> {
        let image = Self { path: folder.join("image"), folder: folder.to_owned() };
        std::fs::create_dir_all(image.mount_point())?;
        copy_sparse(&root.image, &image.path).await?;
        Ok(image)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is mounted in the namespaces that see it.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Runs a shell script in the root of the file system, with these arguments.
    pub async fn edit(&self, script: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let alone = ["--mount", "--propagation", "private", "sh", "-euc", EDIT, "edit"];
        let call = Call::new("unshare").args(alone).arg(&self.path).arg(self.mount_point()).arg(script).args(arguments);
        let printed = call.run().await?;
        self.detached().await?;
        Ok(printed)
    }

    /// Nothing writes to it any more.
    pub async fn detached(&self) -> anyhow::Result<()> {
        wait::until("the disk to be let go", DETACHED, async || Ok(loop_devices(&self.path).is_empty().then_some(()))).await
    }

    /// The file of a snapshot.
    pub fn snapshot_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("snapshot-{name}"))
    }

    pub async fn snapshot(&self, name: &str) -> anyhow::Result<()> {
        copy_sparse(&self.path, &self.snapshot_path(name)).await
    }

    /// The snapshot stays.
    pub async fn restore(&self, name: &str) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path)?;
        copy_sparse(&self.snapshot_path(name), &self.path).await
    }
}
